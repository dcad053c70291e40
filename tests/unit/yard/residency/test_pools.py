"""Models on devices: where each is put, and what goes for it there."""

from __future__ import annotations

from dataclasses import replace

from modelyard.errors import InsufficientMemory, ModelLoadFailed
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare
from modelyard.yard.residency.effects import Complete, ComputeFootprint, Grant, Reject, StartLoad
from modelyard.yard.residency.events import (
    DeviceBudgetsChanged,
    EngineFreed,
    EngineLoaded,
    EngineLoadFailed,
    FilesReplaced,
    ModelRetired,
    RequestArrived,
    RequestEnded,
    UnloadAsked,
)
from modelyard.yard.residency.reconcile import IDLE_BEFORE_MOVE_S
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.simulation.placed import FAST, LONG_S, host, idle, lacks, load, on, reasons, split, starts, yard
from support.simulation.script import frees, refusals

# Where a model is put


def test_a_model_takes_the_fastest_placement_that_fits():
    choices = {name: (on("g0", name), on("g1", name, token_s=0.002), host(name)) for name in "abc"}
    script = yard("a", "b", "c", devices={"g0": 100, "g1": 100}, **choices)
    load(script, "a", 1, choices["a"][0], LONG_S)
    load(script, "b", 2, choices["b"][1], LONG_S)
    load(script, "c", 3, choices["c"][2])
    assert script.state.used == {"host": 1 + 1 + 80, "g0": 80, "g1": 80}


def test_a_model_that_one_device_is_too_small_for_is_split_over_two():
    choice = split("a", 70, 70)
    script = yard("a", devices={"g0": 100, "g1": 100}, a=(on("g0", "a", 140), choice, host("a", 140)))
    load(script, "a", 1, choice)


def test_an_idle_model_is_evicted_where_that_costs_less_than_computing_slowly():
    script = yard("a", "b")
    idle(script, "a", on("g0", "a"), load_s=2.0)
    assert frees(script(RequestArrived("b", 1))) == [("a", False)]
    assert starts(script(EngineFreed("a"))) == [("b", on("g0", "b").placement)]


def test_an_idle_model_stays_where_its_next_load_costs_more_than_computing_slowly():
    script = yard("a", "b")
    idle(script, "a", on("g0", "a"), load_s=30.0)
    load(script, "b", 1, host("b"))


def test_what_has_gone_for_a_placement_did_not_go_for_nothing():
    # Evicting costs less than computing slowly. While the victim is being freed, the device costs no more than before.
    script = yard("a", "b", b=(on("g0", "b"), host("b", token_s=FAST + 0.0015)))
    idle(script, "a", on("g0", "a"), load_s=1.0)
    assert frees(script(RequestArrived("b", 1))) == [("a", False)]
    assert script.wait(0.5) == []
    assert starts(script(EngineFreed("a"))) == [("b", on("g0", "b").placement)]


def test_a_busy_model_is_drained_where_that_costs_less_than_computing_slowly():
    script = yard("a", "b", b=(on("g0", "b"), host("b", token_s=FAST + 0.030)))
    load(script, "a", 1, on("g0", "a"))
    assert script(RequestArrived("b", 2)) == []
    assert frees(script.wait(12.0)) == [("a", True)]


def test_a_busy_model_stays_where_the_other_is_loaded_elsewhere_for_less():
    script = yard("a", "b", b=(on("g0", "b"), host("b", token_s=FAST + 0.010)))
    load(script, "a", 1, on("g0", "a"))
    load(script, "b", 2, host("b"))
    assert frees(script.wait(60.0)) == []


def test_a_load_that_is_under_way_holds_its_room():
    choices = {name: (on("g0", name), on("g1", name, token_s=0.002)) for name in "ab"}
    script = yard("a", "b", devices={"g0": 100, "g1": 100}, **choices)
    assert starts(script(RequestArrived("a", 1))) == [("a", choices["a"][0].placement)]
    assert starts(script(RequestArrived("b", 2))) == [("b", choices["b"][1].placement)]


def test_where_there_is_no_other_placement_a_load_that_is_under_way_is_waited_for():
    script = yard("a", "b", b=(on("g0", "b"),))
    script(RequestArrived("a", 1))
    assert script(RequestArrived("b", 2)) == []
    assert starts(script(EngineLoadFailed("a", "bad"))) == [("b", on("g0", "b").placement)]


def test_weights_that_models_share_on_a_device_count_once():
    choices = {name: (on("g0", name, key="shared"), host(name)) for name in "ab"}
    script = yard("a", "b", devices={"g0": 100}, **choices)
    load(script, "a", 1, choices["a"][0])
    load(script, "b", 2, choices["b"][0])
    assert script.state.used["g0"] == 60 + 20 + 20


def test_the_same_weights_on_two_devices_count_on_each():
    choices = {"a": (on("g0", "a", key="shared"),), "b": (on("g1", "b", key="shared"),)}
    script = yard("a", "b", devices={"g0": 100, "g1": 100}, **choices)
    load(script, "a", 1, choices["a"][0])
    load(script, "b", 2, choices["b"][0])
    assert script.state.used == {"host": 2, "g0": 80, "g1": 80}


def test_of_many_idle_models_those_go_that_take_memory_where_it_is_needed():
    choices = {"a": (on("g1", "a"),), "b": (on("g0", "b"),), "c": (host("c"),), "d": (on("g0", "d"),)}
    script = yard("a", "b", "c", "d", devices={"g0": 100, "g1": 100}, **choices)
    for name in "abc":
        idle(script, name, choices[name][0])
    assert frees(script(RequestArrived("d", 1))) == [("b", False)]


def test_one_idle_model_goes_instead_of_three_whose_loads_cost_more_together():
    choices = {name: (on("g0", name, 25),) for name in "abc"} | {"d": (on("g0", "d", 75),), "e": (on("g0", "e", 75),)}
    script = yard("a", "b", "c", "d", "e", devices={"g0": 150}, **choices)
    for name in "abcd":
        idle(script, name, choices[name][0], load_s=4.0 if name == "d" else 3.0)
    # By last use alone, the three that were used first would go.
    assert frees(script(RequestArrived("e", 1))) == [("d", False)]


def test_a_retired_model_goes_before_one_that_is_used_again_at_no_cost():
    choices = {name: (on("g0", name, 40),) for name in "abc"}
    script = yard("a", "b", "c", **choices)
    load(script, "a", 1, choices["a"][0], LONG_S)
    idle(script, "b", choices["b"][0])
    script(ModelRetired("a"))
    script(RequestEnded("a", 1))
    script(EngineFreed("a"))
    load(script, "c", 2, choices["c"][0])
    assert script.load_state("b") is LoadState.LOADED


def test_a_resident_model_keeps_its_footprints_when_its_files_are_read_again():
    script = yard("a")
    load(script, "a", 1, on("g0", "a"))
    script.choices["a"] = (on("g0", "a", 10),)
    script.size("a")
    assert script.state.used["g0"] == 80


# Parked models


def parked(script, name, choice):
    idle(script, name, choice)
    script(UnloadAsked(name, 950, UnloadMode.PARK))
    assert script(EngineFreed(name, keeps_weights=True)) == [Complete(name, 950)]


def test_a_parked_model_wakes_where_its_weights_are():
    choices = (on("g0", "a"), on("g1", "a", token_s=0.002), host("a"))
    script = yard("a", "b", devices={"g0": 100, "g1": 100}, a=choices)
    load(script, "b", 1, on("g0", "b"))
    parked(script, "a", choices[1])
    script(UnloadAsked("b", 2, UnloadMode.FORCE))
    script(RequestEnded("b", 1))
    script(EngineFreed("b"))
    assert starts(script(RequestArrived("a", 3))) == [("a", choices[1].placement)]


def test_a_parked_model_whose_device_has_become_too_small_gives_its_weights_up_and_is_loaded_elsewhere():
    script = yard("a")
    parked(script, "a", on("g0", "a"))
    # The weights still fit, the model does not.
    assert script(DeviceBudgetsChanged({"g0": 70})) == []
    assert reasons(script(RequestArrived("a", 1))) == [("a", "move")]
    assert starts(script(EngineFreed("a"))) == [("a", ON_HOST)]
    assert script(EngineLoaded("a")) == [Grant("a", 1)]


# Budgets that change


def test_a_device_that_has_less_frees_unused_models_of_its_own_alone():
    choices = {"a": (on("g0", "a"),), "b": (on("g1", "b"),), "c": (host("c"),)}
    script = yard("a", "b", "c", devices={"g0": 100, "g1": 100}, **choices)
    for name in "abc":
        idle(script, name, choices[name][0])
    assert reasons(script(DeviceBudgetsChanged({"g0": 50, "g1": 100}))) == [("a", "budget")]


def test_no_more_models_go_than_have_to():
    script = yard("a", "b", devices={"g0": 200}, a=(on("g0", "a"),), b=(on("g0", "b"),))
    idle(script, "a", on("g0", "a"))
    idle(script, "b", on("g0", "b"))
    assert frees(script(DeviceBudgetsChanged({"g0": 100}))) == [("a", False)]
    # The host is exceeded by what is being freed already, and by nothing else.
    assert script.wait(1.0) == []


def test_a_busy_model_on_a_device_that_has_less_goes_when_it_is_done():
    script = yard("a")
    load(script, "a", 1, on("g0", "a"))
    assert script(DeviceBudgetsChanged({"g0": 50})) == []
    assert reasons(script(RequestEnded("a", 1))) == [("a", "budget")]


def test_a_device_that_is_lost_frees_its_idle_models_and_new_loads_go_elsewhere():
    script = yard("a", "b", "c", b=(on("g1", "b"),), devices={"g0": 100, "g1": 100})
    idle(script, "a", on("g0", "a"))
    idle(script, "b", on("g1", "b"))
    assert reasons(script(DeviceBudgetsChanged({"g1": 100}))) == [("a", "budget")]
    script(EngineFreed("a"))
    load(script, "a", 1, host("a"))
    load(script, "c", 2, host("c"))


def test_a_busy_model_on_a_lost_device_is_no_obstacle_to_loads_elsewhere():
    script = yard(
        "a", "b", "c", devices={"g0": 100, "g1": 100}, c=(on("g1", "c"), host("c")), a_policy={"is_pinned": True}
    )
    load(script, "a", 1, on("g0", "a"))
    script(DeviceBudgetsChanged({"g1": 100}))
    load(script, "b", 2, host("b"))
    load(script, "c", 3, on("g1", "c"))


def test_a_device_that_is_found_again_takes_models():
    script = yard("a", devices={"g1": 10})
    script(DeviceBudgetsChanged({}))
    load(script, "a", 1, host("a"))
    script(RequestEnded("a", 1))
    assert script(DeviceBudgetsChanged({"g0": 100})) == []
    assert reasons(script.wait(IDLE_BEFORE_MOVE_S)) == [("a", "move")]


# Devices that have less than was predicted


def test_a_load_that_a_device_has_no_memory_for_is_tried_elsewhere_and_nobody_is_refused():
    script = yard("a")
    script(RequestArrived("a", 1))
    assert script(lacks("a")) == [StartLoad("a", ON_HOST)]
    assert script(EngineLoaded("a")) == [Grant("a", 1)]


def test_what_a_device_lacked_is_remembered_until_it_has_more():
    script = yard("a")
    script(RequestArrived("a", 1))
    script(lacks("a"))
    script(EngineLoaded("a"))
    script(RequestEnded("a", 1))
    assert script.wait(60.0) == []
    script(UnloadAsked("a", 2))
    script(EngineFreed("a"))
    load(script, "a", 3, host("a"))
    script(RequestEnded("a", 3))
    script(DeviceBudgetsChanged({"g0": 101}))
    assert reasons(script.wait(IDLE_BEFORE_MOVE_S)) == [("a", "move")]
    assert starts(script(EngineFreed("a"))) == [("a", on("g0", "a").placement)]


def test_a_second_failure_fails_the_load_with_its_reason():
    script = yard("a", devices={"g0": 100, "g1": 100}, a=(on("g0", "a"), on("g1", "a", token_s=0.002), host("a")))
    script(RequestArrived("a", 1))
    assert starts(script(lacks("a"))) == [("a", Placement(devices=("g1",)))]
    effects = script(lacks("a", "still too little"))
    assert refusals(effects) == [(1, ModelLoadFailed)]
    assert "still too little" in str(effects[0].error)
    assert script.load_state("a") is LoadState.FAILED


def test_a_load_that_has_ended_may_fall_back_again_the_next_time():
    choices = (on("g0", "a"), on("g1", "a", token_s=0.002), host("a"))
    script = yard("a", devices={"g0": 100, "g1": 100}, a=choices)
    script(RequestArrived("a", 1))
    script(lacks("a"))
    script(EngineLoaded("a"))
    script(RequestEnded("a", 1))
    script(UnloadAsked("a", 2))
    script(EngineFreed("a"))
    assert starts(script(RequestArrived("a", 3))) == [("a", choices[1].placement)]
    assert script(lacks("a")) == [StartLoad("a", ON_HOST)]


def test_a_load_that_fits_nowhere_else_fails_with_its_reason_and_reads_its_files_again():
    script = yard("a", fit=0.5)
    script(RequestArrived("a", 1))
    effects = script(lacks("a"))
    assert refusals(effects) == [(1, ModelLoadFailed)]
    assert "out of memory" in str(effects[0].error)
    script.wait(2.0)
    assert script(RequestArrived("a", 2)) == [ComputeFootprint("a")]


def test_a_model_with_one_placement_fails_at_once():
    script = yard("a", a=(on("g0", "a"),))
    script(RequestArrived("a", 1))
    assert refusals(script(lacks("a"))) == [(1, ModelLoadFailed)]


def test_a_model_falls_back_also_where_its_weights_are_on_the_device_for_another():
    choices = {name: (on("g0", name, key="shared"), host(name)) for name in "ab"}
    script = yard("a", "b", devices={"g0": 200}, **choices)
    load(script, "a", 1, choices["a"][0], LONG_S)
    script(RequestArrived("b", 2))
    assert script(lacks("b")) == [StartLoad("b", ON_HOST)]
    assert script.state.used["g0"] == 80


def test_a_model_with_a_draft_on_its_device_counts_as_too_large_by_one_byte():
    shares = (DeviceShare("g0", "a", 60, 10), DeviceShare("g0", "draft", 10, 10))
    choices = (replace(on("g0", "a"), devices=shares), host("a"))
    script = yard("a", devices={"g0": 100}, a=choices)
    script(RequestArrived("a", 1))
    assert script(lacks("a")) == [StartLoad("a", ON_HOST)]
    assert sum(share.total_bytes for share in script.model("a").choices[0].devices) == 101


def test_files_that_are_replaced_begin_anew():
    script = yard("a")
    script(RequestArrived("a", 1))
    script(lacks("a"))
    assert script(FilesReplaced("a", "file")) == [ComputeFootprint("a")]
    assert starts(script.size("a")) == [("a", on("g0", "a").placement)]
    assert script(lacks("a")) == [StartLoad("a", ON_HOST)]


def test_what_was_measured_counts_for_its_placement_alone():
    script = yard("a")
    script(RequestArrived("a", 1))
    measured = on("g0", "a", 90)
    script(EngineLoaded("a", measured))
    assert script.model("a").choices == (measured, host("a"))
    assert script.state.used == {"host": 1, "g0": 90}


def test_a_model_that_turns_out_to_exceed_its_device_is_loaded_elsewhere_the_next_time():
    script = yard("a")
    script(RequestArrived("a", 1))
    script(EngineLoaded("a", on("g0", "a", 110)))
    assert reasons(script(RequestEnded("a", 1))) == [("a", "budget")]
    script(EngineFreed("a"))
    load(script, "a", 2, host("a"))


# What is pinned


def test_a_pinned_model_stays_on_its_device_whatever_else_is_faster_there():
    script = yard("a", "b", a_policy={"is_pinned": True})
    idle(script, "a", on("g0", "a"))
    load(script, "b", 1, host("b"))
    assert script(DeviceBudgetsChanged({"g0": 10})) == []


def insufficient(effects):
    (refusal,) = [effect for effect in effects if isinstance(effect, Reject)]
    assert isinstance(refusal.error, InsufficientMemory)
    return refusal.error


def test_a_model_that_fits_nowhere_is_refused_with_the_device_that_is_too_small():
    script = yard("a", devices={"g0": 50}, a=(on("g0", "a"),))
    error = insufficient(script(RequestArrived("a", 1)))
    assert (error.device, error.needed_bytes, error.budget_bytes, error.pinned) == ("g0", 80, 50, ())


def test_a_device_that_is_gone_is_named_with_no_memory():
    script = yard("a", devices={"g1": 50}, a=(on("g0", "a"),))
    error = insufficient(script(RequestArrived("a", 1)))
    assert (error.device, error.budget_bytes) == ("g0", 0)


def test_a_model_that_fits_no_device_and_not_the_host_is_refused_with_the_fastest_placement():
    script = yard("a", devices={"g0": 50}, fit=0.5)
    assert insufficient(script(RequestArrived("a", 1))).device == "g0"


def test_a_model_that_fits_only_without_pinned_ones_is_refused_with_their_names():
    script = yard("a", "b", b=(on("g0", "b"),), a_policy={"is_pinned": True})
    idle(script, "a", on("g0", "a"))
    error = insufficient(script(RequestArrived("b", 1)))
    assert (error.device, error.needed_bytes, error.budget_bytes, error.pinned) == ("g0", 80, 100, ("a",))


def test_a_pinned_model_that_exceeds_a_device_is_no_reason_to_refuse_others():
    script = yard(
        "a",
        "b",
        "c",
        b=(on("g0", "b"),),
        c=(on("g1", "c", 200),),
        devices={"g0": 100, "g1": 100},
        a_policy={"is_pinned": True},
    )
    idle(script, "a", on("g0", "a"))
    script(DeviceBudgetsChanged({"g0": 10, "g1": 100}))
    assert insufficient(script(RequestArrived("c", 1))).device == "g1"
