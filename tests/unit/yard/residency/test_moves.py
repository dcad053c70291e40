"""Models that move to faster placements: when, and what becomes of a move that meets others."""

from __future__ import annotations

import math

import pytest

from modelyard.errors import ModelLoading
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.effects import Complete, ComputeFootprint, Free, Grant, Reject, Remove, StartLoad
from modelyard.yard.residency.events import (
    CloseAsked,
    DeviceBudgetsChanged,
    EngineDied,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    FilesWrittenOver,
    ModelRetired,
    ModelRetuned,
    RequestArrived,
    RequestEnded,
    UnloadAsked,
)
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.reconcile import IDLE_BEFORE_MOVE_S
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.placed import FAST, LONG_S, host, idle, lacks, load, on, reasons, split, starts, yard
from support.simulation.script import Script, frees, refusals


def on_the_host(*names, **settings):
    """Models that are loaded on the host and idle, because another model has the device until ``gives_way``."""
    script = yard("x", *names, x=(on("g0", "x"),), **settings)
    load(script, "x", 1, on("g0", "x"), load_s=LONG_S)
    for name in names:
        idle(script, name, script.choices[name][-1])
    return script


def gives_way(script):
    script(UnloadAsked("x", 2, UnloadMode.FORCE))
    script(RequestEnded("x", 1))
    return script(EngineFreed("x"))


def test_a_model_moves_when_room_comes_up_and_it_is_idle():
    script = on_the_host("a")
    assert script.wait(60.0) == []
    effects = gives_way(script)
    assert reasons(effects) == [("a", "move")]
    assert script(EngineFreed("a")) == [StartLoad("a", on("g0", "a").placement)]
    assert script(EngineLoaded("a")) == []
    assert script.model("a").is_idle
    assert script.wait(600.0) == []


def test_a_model_moves_to_the_fastest_placement_that_has_room():
    choices = (on("g0", "a"), split("a", 90, 90), on("g1", "a", token_s=0.005), host("a"))
    script = on_the_host("a", devices={"g0": 100, "g1": 10}, a=choices)
    script.wait(60.0)
    assert reasons(script(DeviceBudgetsChanged({"g0": 100, "g1": 100}))) == [("a", "move")]
    assert starts(script(EngineFreed("a"))) == [("a", choices[2].placement)]


def test_a_model_moves_only_when_it_was_idle_for_some_seconds():
    script = on_the_host("a")
    script(RequestArrived("a", 3))
    gives_way(script)
    assert script.wait(60.0) == []
    assert script(RequestEnded("a", 3)) == []
    assert script.wait(IDLE_BEFORE_MOVE_S - 0.1) == []
    assert reasons(script.wait(0.2)) == [("a", "move")]


def test_a_model_does_not_move_for_a_small_gain():
    # Its load took two seconds; the move would save three.
    script = on_the_host("a", a=(on("g0", "a"), host("a", token_s=FAST + 0.003)))
    assert frees(gives_way(script)) == []
    assert script.wait(600.0) == []
    assert script.state.due_at == math.inf


def test_a_model_is_not_moved_while_another_waits_for_memory():
    names, devices = ("a", "y", "b"), {"g0": 100, "g1": 100}
    script = yard("x", *names, devices=devices, x=(on("g0", "x"),), y=(on("g1", "y"),), b=(on("g1", "b"),))
    load(script, "x", 1, on("g0", "x"), load_s=LONG_S)
    idle(script, "a", host("a"))
    load(script, "y", 3, on("g1", "y"))
    script.wait(IDLE_BEFORE_MOVE_S)
    assert script(RequestArrived("b", 4)) == []
    assert frees(gives_way(script)) == []
    assert script(RequestEnded("b", 4))[0].reason == "move"


def test_a_model_is_not_moved_while_the_files_of_another_are_read():
    script = Script("a", "b", fit=5, devices={"g0": 1}, is_sized=False, footprints={"a": (on("g0", "a"), host("a"))})
    script.size("a")
    idle(script, "a", host("a"))
    script.wait(IDLE_BEFORE_MOVE_S)
    assert script(RequestArrived("b", 1)) == [ComputeFootprint("b")]
    assert script(DeviceBudgetsChanged({"g0": 100})) == []
    assert starts(script.size("b")) == [("b", script.choices["b"][0].placement)]


def test_models_move_one_after_the_other_and_first_the_one_that_gains_most():
    slowest = (on("g0", "b"), host("b", token_s=0.05))
    script = on_the_host("a", "b", b=slowest)
    script.wait(60.0)
    assert reasons(script(DeviceBudgetsChanged({"g0": 260}))) == [("b", "move")]
    assert starts(script(EngineFreed("b"))) == [("b", slowest[0].placement)]
    # It has a turn while the other is loading, which holds its room.
    assert script.load_state("a") is LoadState.FREEING
    assert starts(script(EngineFreed("a"))) == [("a", on("g0", "a").placement)]


def test_a_request_for_a_model_that_moves_is_served_where_it_moves_to():
    script = on_the_host("a")
    script.wait(60.0)
    gives_way(script)
    assert script(RequestArrived("a", 3)) == []
    assert starts(script(EngineFreed("a"))) == [("a", on("g0", "a").placement)]
    assert script(EngineLoaded("a")) == [Grant("a", 3)]
    assert script.model("a").queue == ()


def test_a_request_for_another_model_goes_before_a_move_which_ends_where_there_is_room():
    script = on_the_host("a", "b")
    script(UnloadAsked("b", 3))
    script(EngineFreed("b"))
    script.wait(60.0)
    assert reasons(gives_way(script)) == [("a", "move")]
    script(RequestArrived("b", 4))
    assert starts(script(EngineFreed("a"))) == [("b", on("g0", "b").placement), ("a", ON_HOST)]
    assert script(EngineLoaded("a")) == []


def test_a_move_is_given_up_where_others_wait_for_memory_by_then():
    script = yard("x", "a", "b", "c", fit=1.7, x=(on("g0", "x"),), b=(host("b", 80),), c=(host("c", 100),))
    load(script, "x", 1, on("g0", "x"), LONG_S)
    idle(script, "a", host("a"))
    script.wait(60.0)
    assert reasons(gives_way(script)) == [("a", "move")]
    script(RequestArrived("b", 3))
    script(RequestArrived("c", 4))
    # The device has room for the model that moves, but the host will be needed for the one that waits.
    assert starts(script(EngineFreed("a"))) == [("b", ON_HOST)]
    assert script.load_state("a") is LoadState.UNLOADED
    assert script.model("a").is_at_rest


def test_a_move_that_finds_no_room_leaves_the_model_unloaded_and_waits_for_nothing():
    script = on_the_host("a", fit=1.0)
    script.wait(60.0)
    assert reasons(gives_way(script)) == [("a", "move")]
    script(DeviceBudgetsChanged({}))
    script.state = script.state._replace(budget_bytes=10)
    assert script(EngineFreed("a")) == []
    assert script.load_state("a") is LoadState.UNLOADED
    assert script.model("a").is_at_rest


def test_a_move_that_the_device_has_no_memory_for_ends_on_the_host():
    script = on_the_host("a")
    script.wait(60.0)
    gives_way(script)
    script(EngineFreed("a"))
    assert script(lacks("a")) == [StartLoad("a", ON_HOST)]
    assert script(EngineLoaded("a")) == []
    assert script.wait(600.0) == []


@pytest.mark.parametrize("failure", [EngineLoadFailed("a", "bad"), EngineDied("a", "crash")])
def test_a_move_that_fails_refuses_nobody(failure):
    script = on_the_host("a")
    script.wait(60.0)
    gives_way(script)
    script(EngineFreed("a"))
    for _ in range(3):
        assert all(isinstance(effect, StartLoad) for effect in script(failure))
    assert script.load_state("a") is LoadState.FAILED
    assert script.model("a").queue == ()


def test_a_client_that_does_not_wait_for_a_model_that_moves_has_it_loaded_and_kept():
    script = on_the_host("a", a_policy={"idle_unload_s": 70.0})
    script.wait(60.0)
    gives_way(script)
    script(EngineFreed("a"))
    assert refusals(script(RequestArrived("a", 3, wait_s=0.0))) == [(3, ModelLoading)]
    script.wait(20.0)
    assert script(EngineLoaded("a")) == [Complete("a", 3)]
    assert script.wait(60.0) == []


def test_files_that_are_written_over_end_a_move():
    script = on_the_host("a")
    script.wait(60.0)
    gives_way(script)
    script(EngineFreed("a"))
    assert reasons(script(FilesWrittenOver("a", "file"))) == [("a", "changed")]
    assert script.model("a").queue == ()
    assert script(EngineFreed("a")) == []


def test_an_unload_ends_a_move():
    script = on_the_host("a")
    script.wait(60.0)
    gives_way(script)
    script(UnloadAsked("a", 3))
    assert script(EngineFreed("a")) == [Complete("a", 3)]
    assert script.load_state("a") is LoadState.UNLOADED


def test_a_model_that_is_retired_while_it_moves_is_removed():
    script = on_the_host("a")
    script.wait(60.0)
    gives_way(script)
    script(ModelRetired("a"))
    assert script(EngineFreed("a")) == [Remove("a")]


def test_a_close_ends_a_move_and_answers_nobody():
    script = on_the_host("a")
    script.wait(60.0)
    gives_way(script)
    assert not any(isinstance(effect, Reject) for effect in script(CloseAsked()))
    assert script(EngineFreed("a")) == []


def test_a_move_does_not_count_as_use():
    script = on_the_host("a", a_policy={"idle_unload_s": 100.0})
    script.wait(60.0)
    used_at = script.model("a").last_used
    gives_way(script)
    script(EngineFreed("a"))
    script.wait(10.0)
    script(EngineLoaded("a"))
    assert script.model("a").last_used == used_at
    assert reasons(script.wait(100.0 - 70.0)) == [("a", "idle")]


def test_what_a_moving_model_keeps_leaves_room_for_it():
    on_device = DeviceShare("g0", "a", 40, 0)
    placement = Placement(devices=("g0",), gpu_layers=1)
    in_part = Footprint("a", 60, 20, devices=(on_device,), placement=placement, token_s=FAST)
    script = on_the_host("a", a=(in_part, host("a", 50)), fit=1.0)
    script.wait(60.0)
    (free,) = [effect for effect in gives_way(script) if isinstance(effect, Free)]
    # It takes 50 bytes of the host now, and 80 where it moves to.
    assert free.keep_bytes == 100 - 80
    assert starts(script(EngineFreed("a", prefix_bytes=free.keep_bytes))) == [("a", placement)]


def test_a_parked_model_does_not_move():
    script = on_the_host("a")
    script(UnloadAsked("a", 3, UnloadMode.PARK))
    script(EngineFreed("a", keeps_weights=True))
    script.wait(60.0)
    assert frees(gives_way(script)) == []


def test_a_pinned_model_does_not_move_because_others_could_take_its_memory_meanwhile():
    script = on_the_host("a", a_policy={"is_pinned": True})
    script.wait(60.0)
    assert frees(gives_way(script)) == []
    assert reasons(script(ModelRetuned("a", ModelPolicy("a", 8)))) == [("a", "move")]
