"""Models whose devices have other memory than they were sized for: they are sized again before their next load."""

from __future__ import annotations

import pytest

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.effects import ComputeFootprint, Grant, StartLoad
from modelyard.yard.residency.events import (
    DeviceBudgetsChanged,
    EngineFreed,
    EngineLoadFailed,
    Outdated,
    RequestArrived,
    RequestEnded,
    Sized,
    UnloadAsked,
)
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import RequestId, UnloadMode
from support.simulation.script import Script, refusals

ONE, TWO = RequestId(1), RequestId(2)
ON_DEVICE = Placement(devices=("CUDA0",))
CHOICES = (
    Footprint("a", 5, 5, devices=(DeviceShare("CUDA0", "a", 60, 20),), placement=ON_DEVICE, token_s=0.001),
    Footprint("a", 60, 40, placement=ON_HOST, token_s=0.01),
)
SHORTER = Footprint("a", 60, 20, placement=ON_HOST, token_s=0.01)


@pytest.fixture
def script() -> Script:
    return Script("a", footprints={"a": CHOICES}, devices={"CUDA0": 100})


def test_the_next_load_begins_with_new_sizes_and_those_after_it_do_not(script: Script) -> None:
    script(Outdated("a"))
    assert script(RequestArrived("a", ONE)) == [ComputeFootprint("a")]
    assert script(Sized("a", SHORTER)) == [StartLoad("a", ON_HOST)]
    assert not script.model("a").is_outdated


def test_a_loaded_model_serves_on_and_is_sized_when_it_is_loaded_again(script: Script) -> None:
    script.load("a", 1)
    assert script(Outdated("a")) == []
    assert script(RequestArrived("a", TWO)) == [Grant("a", TWO)]
    for request in (ONE, TWO):
        script(RequestEnded("a", request))
    script(UnloadAsked("a", RequestId(3)))
    script(EngineFreed("a"))
    assert script(RequestArrived("a", RequestId(4))) == [ComputeFootprint("a")]


def test_a_parked_model_wakes_with_the_sizes_of_its_weights(script: Script) -> None:
    script.idle("a")
    script(UnloadAsked("a", ONE, UnloadMode.PARK))
    script(EngineFreed("a", keeps_weights=True))
    script(Outdated("a"))
    assert script(RequestArrived("a", TWO)) == [StartLoad("a", ON_DEVICE)]


def test_an_answer_that_has_begun_goes_on_with_its_context_unless_there_is_no_room_for_one(script: Script) -> None:
    script.load("a", 1)
    script(UnloadAsked("a", TWO, UnloadMode.SUSPEND))
    script.suspended("a")
    script(Outdated("a"))
    assert script(RequestArrived("a", RequestId(3))) == [StartLoad("a", ON_DEVICE)]

    script = Script("a", footprints={"a": CHOICES}, devices={"CUDA0": 100}, fit=0.85)
    script.load("a", 1)
    script(UnloadAsked("a", TWO, UnloadMode.SUSPEND))
    script.suspended("a")
    script(DeviceBudgetsChanged({}))
    script(Outdated("a"))
    assert script(RequestArrived("a", RequestId(3))) == [ComputeFootprint("a")]
    assert script(Sized("a", SHORTER)) == [StartLoad("a", ON_HOST)]


def test_what_a_load_without_memory_has_taught_is_not_lost(script: Script) -> None:
    script(RequestArrived("a", ONE))
    script(Outdated("a"))
    assert script(EngineLoadFailed("a", "no memory", lacks_device_memory=True)) == [StartLoad("a", ON_HOST)]


def test_prompts_that_were_kept_stay_when_sizing_fails(script: Script) -> None:
    script.idle("a")
    script(UnloadAsked("a", ONE))
    script(EngineFreed("a", prefix_bytes=7))
    script(Outdated("a"))
    script(RequestArrived("a", TWO))
    assert refusals(script(EngineLoadFailed("a", "no such file")))[0][0] == TWO
    assert script.load_state("a") is LoadState.FAILED
    assert script.model("a").prefix_bytes == 7
