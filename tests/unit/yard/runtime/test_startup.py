"""Which models a yard refuses to start with."""

from __future__ import annotations

import pytest

from modelyard.errors import InsufficientMemory
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import Residency
from modelyard.yard.runtime.startup import refuse_unfit

STATE = Residency.of({name: ModelPolicy(name, 8) for name in "ab"}, 100, device_budgets={"CUDA0": 50})


def on_device(size: int, host: int = 0) -> Footprint:
    return Footprint("w", 0, host, devices=(DeviceShare("CUDA0", "w", size, 0),))


def test_models_that_fit_by_themselves_are_taken_also_where_they_do_not_fit_together():
    refuse_unfit(STATE, {"a": (Footprint("a", 60, 40),), "b": (Footprint("b", 60, 0),)})
    refuse_unfit(STATE, {"a": (on_device(50, host=100),), "b": (on_device(50),)})
    refuse_unfit(STATE, {"a": (on_device(51), Footprint("a", 60, 40))})


@pytest.mark.parametrize(
    ("footprint", "refused"),
    [
        (Footprint("a", 60, 41), InsufficientMemory("b", 101, 100)),
        (on_device(51, host=10), InsufficientMemory("b", 51, 50, device="CUDA0")),
        (on_device(1, host=101), InsufficientMemory("b", 101, 100)),
    ],
)
def test_a_model_that_never_fits_a_pool_is_refused_with_its_numbers(footprint: Footprint, refused: InsufficientMemory):
    with pytest.raises(InsufficientMemory) as error:
        refuse_unfit(STATE, {"a": (on_device(1),), "b": (footprint,)})
    assert str(error.value) == str(refused)
