"""A load that is found to take more than was predicted, before it begins: where it goes is decided again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.effects import Grant, StartLoad
from modelyard.yard.residency.events import (
    DeviceBudgetsChanged,
    EngineLoaded,
    EngineLoadFailed,
    Outgrown,
    RequestArrived,
    Sized,
)
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import RequestId
from support.simulation.script import Script

ONE = RequestId(1)
FIRST, SECOND = Placement(devices=("CUDA0",)), Placement(devices=("CUDA1",))


def on(device: str, placement: Placement, size: int = 60) -> Footprint:
    shares = (DeviceShare(device, device, size, 20),)
    return Footprint(f"a {device}", 5, 5, devices=shares, placement=placement, token_s=0.001)


CHOICES = (on("CUDA0", FIRST), on("CUDA1", SECOND), Footprint("a", 60, 40, placement=ON_HOST, token_s=0.01))


@pytest.fixture
def script() -> Script:
    """A model on its way to the first of two devices."""
    script = Script("a")
    script(DeviceBudgetsChanged({"CUDA0": 100, "CUDA1": 100}))
    script(Sized("a", CHOICES[0], CHOICES[1:]))
    assert script(RequestArrived("a", ONE)) == [StartLoad("a", FIRST)]
    return script


def test_it_goes_on_where_it_was_to_be_loaded_if_it_still_fits(script: Script) -> None:
    larger = on("CUDA0", FIRST, 80)
    assert script(Outgrown("a", larger)) == [StartLoad("a", FIRST)]
    assert script.model("a").choices == (larger, *CHOICES[1:])
    assert script.state.used["CUDA0"] == 100
    assert script(EngineLoaded("a")) == [Grant("a", ONE)]


def test_it_goes_elsewhere_if_it_does_not_fit_there(script: Script) -> None:
    assert script(Outgrown("a", on("CUDA0", FIRST, 81))) == [StartLoad("a", SECOND)]
    assert script.state.used.get("CUDA0", 0) == 0
    assert script(Outgrown("a", on("CUDA1", SECOND, 81))) == [StartLoad("a", ON_HOST)]


def test_it_may_still_fall_back_from_there_and_what_was_kept_of_its_prompts_stays(script: Script) -> None:
    script.state = script.state._replace(models={"a": script.model("a")._replace(prefix_bytes=7)})
    assert script(Outgrown("a", on("CUDA0", FIRST, 80))) == [StartLoad("a", FIRST)]
    assert script.model("a").prefix_bytes == 7
    assert script(EngineLoadFailed("a", "no memory", lacks_device_memory=True)) == [StartLoad("a", SECOND)]


def test_news_of_a_load_that_is_over_means_nothing(script: Script) -> None:
    script(EngineLoaded("a"))
    before = script.model("a")
    assert script(Outgrown("a", replace(CHOICES[0], context_bytes=99))) == []
    assert script.model("a") == before
    assert script.load_state("a") is LoadState.LOADED
