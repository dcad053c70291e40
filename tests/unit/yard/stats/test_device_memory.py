"""What models take of devices, as listings, plans and metrics show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelyard.protocol.placement import ON_HOST, DeviceBytes, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.requests.context import Caller
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.stats.counters import Counters
from modelyard.yard.stats.device_memory import DeviceUse, device_bytes, device_uses
from modelyard.yard.stats.snapshot import metrics_snapshot
from modelyard.yard.stats.status import Eviction, PoolPlan, memory_of, plan
from support.scripted_engines import profile_of

NOW = 1000.0
TWO = {"CUDA0": 200, "CUDA1": 200}


def on(*shares: tuple[str, int, int], host: tuple[int, int] = (5, 5), key: str = "", token_s: float = 0.0) -> Footprint:
    """A footprint with weights and a context on each device, and on the host."""
    names = tuple(device for device, _, _ in shares)
    devices = tuple(DeviceShare(device, key, weights, context) for device, weights, context in shares)
    return Footprint(key, *host, devices=devices, placement=Placement(names), token_s=token_s)


def model(
    name: str, load_state: LoadState, footprint: Footprint, *others: Footprint, **fields: Any
) -> tuple[str, ModelState]:
    own = [each if each.weights_key else _keyed(each, name) for each in (footprint, *others)]
    policy = ModelPolicy(name, 8, is_pinned=fields.pop("pinned", False))
    return name, ModelState(policy, load_state, own[0], choices=tuple(own), **fields)


def _keyed(footprint: Footprint, name: str) -> Footprint:
    devices = tuple(replace(share, weights_key=name) for share in footprint.devices)
    return replace(footprint, weights_key=name, devices=devices)


def yard(*models: tuple[str, ModelState], budget: int = 1000, devices: dict[str, int] | None = None) -> Residency:
    states = dict(models)
    active = frozenset(name for name, state in states.items() if not state.is_at_rest)
    return Residency(states, budget, TWO if devices is None else devices, now=NOW, active=active)


# One model


@pytest.mark.parametrize(
    ("load_state", "taken"),
    [
        (LoadState.UNLOADED, {}),
        (LoadState.LOADING, {"CUDA0": 70, "CUDA1": 40}),
        (LoadState.LOADED, {"CUDA0": 70, "CUDA1": 40}),
        (LoadState.PARKED, {"CUDA0": 60, "CUDA1": 30}),
        (LoadState.FREEING, {"CUDA0": 70, "CUDA1": 40}),
    ],
)
def test_a_model_takes_of_devices_what_is_predicted_until_it_was_measured(
    load_state: LoadState, taken: dict[str, int]
) -> None:
    state = yard(model("m", load_state, on(("CUDA0", 60, 10), ("CUDA1", 30, 10))))
    assert device_bytes(state, "m", None) == taken
    assert device_bytes(state, "m", profile_of("m")) == taken
    assert memory_of(state, "m").resident_bytes == sum(taken.values()) + {
        LoadState.UNLOADED: 0,
        LoadState.PARKED: 5,
    }.get(load_state, 10)


def test_a_loaded_model_takes_what_was_measured_and_a_load_that_follows_what_is_predicted() -> None:
    measured = (("CUDA0", DeviceBytes(61, 5, 3, 0)), ("host", DeviceBytes(5, 0, 1, 4)))
    profile, footprint = replace(profile_of("m"), device_bytes=measured), on(("CUDA0", 60, 10))
    states = (LoadState.LOADED, LoadState.PARKED, LoadState.LOADING)
    shown = [device_bytes(yard(model("m", each, footprint)), "m", profile) for each in states]
    assert shown == [{"CUDA0": 69}, {"CUDA0": 61}, {"CUDA0": 70}]


def test_weights_are_shared_on_one_device_only() -> None:
    state = yard(
        model("a", LoadState.LOADED, on(("CUDA0", 60, 10), key="w")),
        model("b", LoadState.LOADED, on(("CUDA0", 60, 10), key="w")),
        model("c", LoadState.LOADED, on(("CUDA1", 60, 10), host=(9, 9), key="w")),
    )
    assert memory_of(state, "a") == (80, 80, 65)
    assert memory_of(state, "c").shared_bytes == 9


# All models


def test_devices_are_listed_with_their_budgets_and_what_is_used_of_them() -> None:
    state = yard(
        model("a", LoadState.LOADED, on(("CUDA0", 60, 10), key="w")),
        model("b", LoadState.LOADED, on(("CUDA0", 60, 20), key="w")),
    )
    assert device_uses(state) == {"CUDA0": DeviceUse(200, 90), "CUDA1": DeviceUse(200, 0)}
    assert [use.free_bytes for use in device_uses(state).values()] == [110, 200]


def test_a_device_that_is_gone_is_listed_until_its_models_are() -> None:
    lost = yard(model("a", LoadState.FREEING, on(("CUDA0", 60, 10))), devices={})
    assert device_uses(lost) == {"CUDA0": DeviceUse(0, 70)}
    assert device_uses(lost)["CUDA0"].free_bytes == 0
    assert device_uses(yard(model("a", LoadState.UNLOADED, on(("CUDA0", 60, 10))), devices={})) == {}


def test_metrics_have_the_bytes_of_each_model_on_each_device() -> None:
    state = yard(
        model("a", LoadState.LOADED, on(("CUDA0", 60, 10), ("CUDA1", 5, 5))),
        model("b", LoadState.LOADED, on(host=(10, 10))),
    )
    snapshot = metrics_snapshot(state, Counters())
    assert snapshot.devices == {"CUDA0": DeviceUse(200, 70), "CUDA1": DeviceUse(200, 10)}
    assert snapshot.used_bytes == 30
    shown = {each.model: (each.resident_bytes, each.device_bytes) for each in snapshot.models}
    assert shown == {"a": (90, {"CUDA0": 70, "CUDA1": 10}), "b": (20, {})}


# Plans


def test_a_plan_has_what_is_needed_and_free_of_each_device() -> None:
    state = yard(
        model("a", LoadState.LOADED, on(("CUDA0", 60, 10), host=(10, 10))),
        model("b", LoadState.UNLOADED, on(("CUDA0", 100, 20), ("CUDA1", 10, 20), token_s=0.02)),
    )
    planned = plan(state, "b")
    assert planned.outcome == "fits"
    assert (planned.needed_bytes, planned.free_bytes, planned.budget_bytes) == (10, 980, 1000)
    assert planned.devices == {"CUDA0": PoolPlan(120, 130, 200), "CUDA1": PoolPlan(30, 200, 200)}
    assert planned.placement == "CUDA0+CUDA1"
    assert planned.tokens_per_s == pytest.approx(50)


def test_an_eviction_gives_back_memory_of_its_devices() -> None:
    state = yard(
        model("a", LoadState.LOADED, on(("CUDA0", 150, 20), host=(10, 30)), last_used=NOW - 42, load_s=1.5),
        model("b", LoadState.UNLOADED, on(("CUDA0", 100, 20))),
    )
    planned = plan(state, "b")
    assert planned.outcome == "evicts"
    assert planned.evicts == (Eviction("a", 40, "idle for 42 s, back in about 1.5 s", {"CUDA0": 170}),)


def test_models_that_a_key_may_not_see_are_one_entry_with_all_their_memory() -> None:
    state = yard(
        model("a", LoadState.LOADED, on(("CUDA0", 90, 10), host=(1, 1))),
        model("b", LoadState.LOADED, on(("CUDA0", 70, 10), ("CUDA1", 7, 3), host=(1, 1))),
        model("c", LoadState.UNLOADED, on(("CUDA0", 190, 10), ("CUDA1", 190, 10))),
    )
    caller = Caller()
    caller.models = frozenset({"c"})
    (gone,) = plan(state, "c").visible_to(caller).evicts
    assert (gone.model, gone.bytes, gone.device_bytes) == ("other models", 4, {"CUDA0": 180, "CUDA1": 10})


def test_a_plan_is_made_for_the_placement_that_is_chosen() -> None:
    busy = model("a", LoadState.LOADED, on(("CUDA0", 150, 20), token_s=0.01), leases={1: 0}, pinned=True)
    on_host = Footprint("b", 100, 20, placement=ON_HOST, token_s=0.1)
    planned = plan(yard(busy, model("b", LoadState.UNLOADED, on(("CUDA0", 100, 20), token_s=0.01), on_host)), "b")
    assert (planned.outcome, planned.placement, planned.needed_bytes) == ("fits", "host", 120)
    assert planned.devices["CUDA0"].needed_bytes == 0
    assert planned.tokens_per_s == pytest.approx(10)


def test_a_model_that_is_there_is_not_planned_anywhere_else() -> None:
    faster, slower = on(("CUDA0", 100, 20), token_s=0.01), Footprint("m", 100, 20, placement=ON_HOST, token_s=0.1)
    name, there = model("m", LoadState.LOADED, slower, faster)
    planned = plan(yard((name, there._replace(choices=(faster, slower)))), "m")
    assert (planned.outcome, planned.placement) == ("loaded", "host")


def test_weights_parked_on_a_device_are_not_needed_again() -> None:
    planned = plan(yard(model("m", LoadState.PARKED, on(("CUDA0", 60, 10)))), "m")
    assert (planned.needed_bytes, planned.devices["CUDA0"].needed_bytes) == (5, 10)


def test_weights_parked_on_a_device_with_too_little_memory_are_needed_elsewhere() -> None:
    on_host = Footprint("m", 60, 20, placement=ON_HOST)
    parked = model("m", LoadState.PARKED, on(("CUDA0", 60, 10), host=(0, 5)), on_host)
    planned = plan(yard(parked, devices={"CUDA0": 65}), "m")
    assert (planned.placement, planned.needed_bytes, planned.devices["CUDA0"].needed_bytes) == ("host", 80, 0)


def test_a_model_that_never_fits_shows_which_device_is_too_small() -> None:
    planned = plan(yard(model("m", LoadState.UNLOADED, on(("CUDA0", 190, 20)))), "m")
    assert planned.outcome == "never"
    assert planned.devices["CUDA0"] == PoolPlan(210, 200, 200)


def test_the_number_of_layers_is_part_of_a_plan_where_it_is_known() -> None:
    footprint = replace(on(("CUDA0", 60, 10)), placement=Placement(("CUDA0",), gpu_layers=3))
    state = yard(model("m", LoadState.UNLOADED, footprint))
    assert plan(state, "m", 5).placement == "CUDA0, 3 of 5 layers"
    assert plan(state, "m").placement == "CUDA0, 3 layers"


def test_without_devices_a_plan_has_nothing_of_them() -> None:
    planned = plan(yard(model("m", LoadState.UNLOADED, on(host=(10, 10))), devices={}), "m")
    assert (planned.devices, planned.placement, planned.tokens_per_s) == ({}, "", None)
