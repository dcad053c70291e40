"""Where a model is put, in a few words."""

from __future__ import annotations

import pytest

from modelyard.protocol.placement import ANYWHERE, ON_HOST, Placement
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.stats.placement_text import percents, placement_of_model, placement_text

ONE, TWO = ("CUDA0",), ("CUDA0", "CUDA1")
LAYERS = 33


@pytest.mark.parametrize(
    ("placement", "text"),
    [
        (ON_HOST, "host"),
        (Placement(ONE), "CUDA0"),
        (Placement(TWO), "CUDA0+CUDA1"),
        (Placement(TWO, split=(60.0, 40.0)), "CUDA0+CUDA1 60:40"),
        (Placement(TWO, split=(20_000.0, 10_000.0)), "CUDA0+CUDA1 67:33"),
        (Placement(TWO, split=(0.0, 1.0)), "CUDA1"),
        (Placement(TWO, split=(3.0,)), "CUDA0"),
        (Placement(TWO, split=(1.0, 1.0), split_mode="row"), "CUDA0+CUDA1 50:50 by rows"),
        (Placement(TWO, split_mode="none", main_device=1), "CUDA1"),
        (Placement(TWO, split=(1.0, 1.0), split_mode="none"), "CUDA0"),
        (Placement(ONE, gpu_layers=12), "CUDA0, 12 of 33 layers"),
        (Placement(TWO, split=(4.0, 8.0), gpu_layers=12), "CUDA0+CUDA1 33:67, 12 of 33 layers"),
        (Placement(ONE, gpu_layers=33), "CUDA0"),
        (Placement(ONE, gpu_layers=99), "CUDA0"),
        (Placement(ONE, cpu_moe_layers=20), "CUDA0, experts of 20 layers on the host"),
        (Placement(ONE, cpu_moe_layers=1), "CUDA0, experts of 1 layer on the host"),
        (Placement(ONE, cpu_moe_layers=32), "CUDA0, experts on the host"),
        (Placement(ONE, cpu_moe_layers=99), "CUDA0, experts on the host"),
        (Placement(ONE, tensor_overrides=(("output", "host"),)), "CUDA0, some tensors elsewhere"),
        (Placement(ONE, kv_on_host=True), "CUDA0, KV cache on the host"),
        (
            Placement(ONE, gpu_layers=8, cpu_moe_layers=2, kv_on_host=True),
            "CUDA0, 8 of 33 layers, experts of 2 layers on the host, KV cache on the host",
        ),
    ],
)
def test_a_placement_is_named_by_its_devices_and_by_what_is_not_there(placement: Placement, text: str) -> None:
    assert placement_text(placement, LAYERS) == text


def test_without_the_number_of_layers_only_what_is_on_devices_is_named() -> None:
    assert placement_text(Placement(ONE, gpu_layers=12)) == "CUDA0, 12 layers"
    assert placement_text(Placement(ONE, cpu_moe_layers=20)) == "CUDA0, experts of 20 layers on the host"


def test_a_placement_that_leaves_the_devices_open_has_no_name() -> None:
    assert placement_text(ANYWHERE, LAYERS) == ""


@pytest.mark.parametrize(
    ("parts", "whole"),
    [((1.0,), [100]), ((1.0, 1.0, 1.0), [34, 33, 33]), ((2.0, 1.0), [67, 33]), ((0.4, 99.6), [0, 100])],
)
def test_percents_add_up(parts: tuple[float, ...], whole: list[int]) -> None:
    assert percents(parts) == whole
    assert sum(whole) == 100


@pytest.mark.parametrize("load_state", list(LoadState))
def test_only_a_model_that_takes_memory_is_somewhere(load_state: LoadState) -> None:
    model = ModelState(ModelPolicy("m", 8), load_state, Footprint("m", 1, 1, placement=Placement(ONE)))
    state = Residency({"m": model}, 100, {"CUDA0": 100})
    assert bool(placement_of_model(state, model)) is model.is_resident


def test_the_host_is_named_only_beside_devices() -> None:
    model = ModelState(ModelPolicy("m", 8), LoadState.LOADED, Footprint("m", 1, 1, placement=ON_HOST))
    assert placement_of_model(Residency({"m": model}, 100), model) == ""
    assert placement_of_model(Residency({"m": model}, 100, {"CUDA0": 100}), model) == "host"


def test_a_model_on_a_device_that_is_gone_is_still_named_by_it() -> None:
    model = ModelState(ModelPolicy("m", 8), LoadState.FREEING, Footprint("m", 1, 1, placement=Placement(ONE)))
    assert placement_of_model(Residency({"m": model}, 100), model) == "CUDA0"
