"""Files that change under a model: what was made of the old ones ends, and the new ones are looked at."""

from __future__ import annotations

import pytest

from modelyard.errors import ModelFileChanged
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.effects import Abort, ComputeFootprint, DiscardKept, Free, Grant, StartLoad
from modelyard.yard.residency.events import (
    EngineDied,
    EngineDying,
    EngineFreed,
    EngineLoaded,
    FilesReplaced,
    FilesWrittenOver,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    Sized,
    UnloadAsked,
)
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import RequestId, UnloadMode
from support.simulation.script import Script

ONE, TWO, THREE = RequestId(1), RequestId(2), RequestId(3)
NEW = Footprint("a", 70, 20)


def aborted(effects) -> list[int]:
    assert all(isinstance(effect.error, ModelFileChanged) for effect in effects if isinstance(effect, Abort))
    return [effect.request for effect in effects if isinstance(effect, Abort)]


def changed_frees(effects) -> list[Free]:
    frees = [effect for effect in effects if isinstance(effect, Free)]
    assert all(
        free.reason == "changed" and not (free.keep_bytes or free.suspends or free.keeps_weights) for free in frees
    )
    return frees


def test_running_requests_end_and_those_that_wait_are_served_from_the_new_file():
    script = Script("a")
    script.load("a", 1)
    effects = script(FilesWrittenOver("a", "m.gguf"))
    assert aborted(effects) == [1]
    assert len(changed_frees(effects)) == 1
    assert script(RequestArrived("a", TWO)) == []
    assert script(RequestEnded("a", ONE)) == []
    assert script(EngineFreed("a")) == [ComputeFootprint("a")]
    assert script(Sized("a", NEW)) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", TWO)]
    assert script.model("a").footprint == NEW


def test_a_model_that_nobody_uses_goes_and_is_looked_at_anew_when_it_is_asked_for():
    script = Script("a", a={"is_pinned": True})
    script.idle("a")
    assert len(changed_frees(script(FilesWrittenOver("a", "m.gguf")))) == 1
    script(EngineFreed("a"))
    assert (script.load_state("a"), script.model("a").footprint) == (LoadState.UNLOADED, None)
    assert script(RequestArrived("a", TWO)) == [ComputeFootprint("a")]


def test_parked_weights_go_and_so_do_kept_prompts():
    script = Script("a")
    script.idle("a")
    script(UnloadAsked("a", TWO, UnloadMode.PARK))
    script(EngineFreed("a", 7, keeps_weights=True))
    assert script.load_state("a") is LoadState.PARKED
    effects = script(FilesWrittenOver("a", "m.gguf"))
    assert DiscardKept("a") in effects
    assert len(changed_frees(effects)) == 1
    script(EngineFreed("a"))
    assert script.state.used_bytes == 0


def test_of_a_model_that_is_on_its_way_out_nothing_is_kept():
    script = Script("a")
    script.load("a", 1)
    script(UnloadAsked("a", TWO, UnloadMode.SUSPEND))
    assert aborted(script(FilesWrittenOver("a", "m.gguf"))) == [1]
    assert script(RequestSuspended("a", ONE, 5)) == []
    effects = script(EngineFreed("a", 7, keeps_weights=True))
    assert DiscardKept("a") in effects
    assert len(changed_frees(effects)) == 1
    script(EngineFreed("a"))
    assert script.state.used_bytes == 0


def test_a_load_under_which_the_file_changes_is_begun_again():
    script = Script("a")
    script(RequestArrived("a", ONE))
    effects = script(FilesWrittenOver("a", "m.gguf"))
    assert aborted(effects) == []
    assert len(changed_frees(effects)) == 1
    assert script(EngineFreed("a")) == [ComputeFootprint("a")]


def test_an_engine_that_dies_of_it_is_counted_against_nobody():
    script = Script("a")
    script.load("a", 1)
    script(FilesWrittenOver("a", "m.gguf"))
    script(RequestArrived("a", TWO))
    assert script(EngineDying("a", "its process was ended by SIGBUS", ((ONE, "this"),))) == []
    assert script(EngineDied("a", "its process was ended by SIGBUS")) == [ComputeFootprint("a")]
    model = script.model("a")
    assert (model.restarts, model.deaths_in_row, model.suspects) == (1, 0, frozenset())
    assert not script.state.poison


def test_a_second_change_of_the_same_file_changes_nothing():
    script = Script("a")
    script.load("a", 1)
    script(FilesWrittenOver("a", "m.gguf"))
    assert script(FilesWrittenOver("a", "mmproj.gguf")) == []


def test_a_change_that_is_told_too_late_means_nothing():
    script = Script("a")
    assert script(FilesWrittenOver("a", "m.gguf")) == []
    assert script(FilesReplaced("a", "m.gguf")) == []
    assert script.model("a").footprint is not None


def test_files_that_were_replaced_since_they_were_sized_are_sized_again():
    script = Script("a")
    script(RequestArrived("a", ONE))
    assert script(FilesReplaced("a", "m.gguf")) == [ComputeFootprint("a")]
    assert script.load_state("a") is LoadState.SIZING
    assert script(Sized("a", NEW)) == [StartLoad("a")]
    assert script(EngineLoaded("a")) == [Grant("a", ONE)]


def test_a_suspended_request_does_not_go_on_with_files_that_came_in_the_place_of_its_own():
    script = Script("a", fit=1.2)
    script.load("a", 1)
    script(UnloadAsked("a", TWO, UnloadMode.SUSPEND))
    script(RequestSuspended("a", ONE, 0))
    script(EngineFreed("a", 7))
    assert script(RequestArrived("a", THREE)) == [StartLoad("a")]
    effects = script(FilesReplaced("a", "m.gguf"))
    assert aborted(effects) == [1]
    assert DiscardKept("a") in effects
    assert ComputeFootprint("a") in effects


@pytest.mark.parametrize("file", ["m.gguf", "mmproj.gguf"])
def test_the_error_names_file_and_model_and_the_way_out(file):
    text = str(ModelFileChanged("small", file))
    assert f"The file {file} of the model 'small' changed" in text
    assert "(mv)" in text
