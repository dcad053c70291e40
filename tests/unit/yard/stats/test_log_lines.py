"""Each line of the log about a model has the numbers that caused it."""

from __future__ import annotations

import pytest

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.effects import Free
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import MOVE, RequestId, Waiter, WaitKind
from modelyard.yard.stats.log_lines import failed, fell_back, freeing, loaded, loading, waits

NOW, GB = 1000.0, 10**9


def model(name: str, load_state: LoadState, total: float = 4.0, **fields: object) -> tuple[str, ModelState]:
    footprint = Footprint(name, round(total * GB) - GB, GB)
    return name, ModelState(ModelPolicy(name, 8), load_state, footprint, **fields)  # type: ignore[arg-type]


def yard(*models: tuple[str, ModelState], budget: float = 12.0) -> Residency:
    states = dict(models)
    active = frozenset(name for name, state in states.items() if not state.is_at_rest)
    return Residency(states, round(budget * GB), now=NOW, active=active)


def asked(*, count: int = 1) -> tuple[Waiter, ...]:
    return tuple(Waiter(WaitKind.LEASE, RequestId(n), n, NOW, NOW + 9) for n in range(count))


def freed(name: str, **fields: object) -> Free:
    return Free(name, **{"suspends": False, "keep_bytes": 0, "why": "to make room for x", "reason": "room", **fields})  # type: ignore[arg-type]


def test_a_load_says_what_it_takes_of_what_is_free() -> None:
    state = yard(model("x", LoadState.LOADING, 2.3), model("y", LoadState.LOADED, 5.6))
    assert loading(state, "x") == "Loading x (2.3 GB predicted of 6.4 GB free)"


def test_a_load_of_parked_weights_says_so() -> None:
    state = yard(model("x", LoadState.LOADING, 2.3, was_parked=True))
    assert loading(state, "x") == "Loading x (2.3 GB predicted of 12.0 GB free, its weights are parked)"


def test_a_loaded_model_says_what_it_takes_and_what_all_take_of_the_budget() -> None:
    state = yard(model("x", LoadState.LOADED, 2.4), model("y", LoadState.LOADED, 2.7))
    assert loaded(state, "x", 4.12) == "Loaded x in 4.1 s: 2.4 GB, budget 5.1 of 12.0 GB"


def test_a_failed_load_says_when_it_is_tried_again() -> None:
    state = yard(model("x", LoadState.FAILED, retry_at=NOW + 30))
    assert failed(state, "x", "no memory.") == "x cannot be loaded: no memory. It is not tried again for 30 s."


@pytest.mark.parametrize(
    ("effect", "fields", "line"),
    [
        (freed("y"), {}, "Unloading y to make room for x: idle for 3 min, back in about 1.5 s"),
        (
            freed("y", keeps_weights=True, suspends=True),
            {"leases": {RequestId(1): 0}},
            "Parking y to make room for x: 1 request of it pauses, back in about 1.5 s",
        ),
        (freed("y", why="it was idle for 60 s", reason="idle"), {}, "Unloading y: it was idle for 60 s"),
        (
            freed("y", why="more memory is used than the budget has", reason="budget"),
            {},
            "Unloading y because more memory is used than the budget has: idle for 3 min, back in about 1.5 s",
        ),
    ],
)
def test_an_unload_says_why_it_is_this_model(effect: Free, fields: dict[str, object], line: str) -> None:
    state = yard(model("y", LoadState.FREEING, last_used=NOW - 180, load_s=1.5, **fields))
    assert freeing(state, effect) == line


def test_requests_that_wait_for_a_busy_model_say_for_which_once() -> None:
    busy = model("y", LoadState.LOADED, 10.0, leases={RequestId(7): 0, RequestId(8): 0})
    state = yard(model("x", LoadState.UNLOADED, queue=asked(count=3)), busy)
    line = "3 requests for x wait: it needs 4.0 GB, 2.0 of 12.0 GB is free; y is busy (2 requests)"
    assert waits(state, ()) == {"x": line}
    assert waits(state, {"x"}) == {}


def test_a_load_under_way_is_waited_for() -> None:
    state = yard(model("x", LoadState.UNLOADED, queue=asked()), model("y", LoadState.LOADING, 10.0))
    line = "1 request for x waits: it needs 4.0 GB, 2.0 of 12.0 GB is free; y is loading"
    assert waits(state, ()) == {"x": line}


@pytest.mark.parametrize(
    "other",
    [model("y", LoadState.FREEING, 10.0), model("y", LoadState.LOADED, 10.0), model("y", LoadState.LOADED, 4.0)],
    ids=["leaves already", "is idle", "leaves room"],
)
def test_what_needs_no_wait_for_others_is_not_reported(other: tuple[str, ModelState]) -> None:
    assert waits(yard(model("x", LoadState.UNLOADED, queue=asked()), other), ()) == {}


def test_a_model_that_nobody_asked_for_does_not_wait() -> None:
    assert waits(yard(model("x", LoadState.UNLOADED), model("y", LoadState.LOADING, 10.0)), ()) == {}


# Devices

CUDA0, TWO = Placement(("CUDA0",)), Placement(("CUDA0", "CUDA1"), split=(3.0, 1.0))
BUDGETS = {"CUDA0": 24 * GB, "CUDA1": 8 * GB}


def placed(
    name: str,
    load_state: LoadState,
    *others: Footprint,
    placement: Placement = CUDA0,
    sizes: tuple[int, ...] = (9,),
    token_s: float = 0.0,
    **fields: object,
) -> tuple[str, ModelState]:
    """A model that takes some GB of each device, and half a GB of the host."""
    shares = zip(placement.devices or (), sizes, strict=False)
    devices = tuple(DeviceShare(device, name, size * GB, 0) for device, size in shares)
    footprint = Footprint(name, 0, GB // 2, devices=devices, placement=placement, token_s=token_s)
    state = ModelState(ModelPolicy(name, 8), load_state, footprint, (*others, footprint), **fields)  # type: ignore[arg-type]
    return name, state


def with_devices(*models: tuple[str, ModelState]) -> Residency:
    return yard(*models)._replace(device_budgets=BUDGETS)


def test_a_load_onto_devices_says_what_it_takes_of_each() -> None:
    state = with_devices(
        placed("x", LoadState.LOADING, placement=TWO, sizes=(9, 3)), placed("y", LoadState.LOADED, sizes=(4,))
    )
    assert loading(state, "x") == (
        "Loading x on CUDA0+CUDA1 75:25 (9.0 GB predicted of 20.0 GB free on CUDA0, "
        "3.0 GB predicted of 8.0 GB free on CUDA1, 500 MB predicted of 11.5 GB free on the host)"
    )


def test_a_load_on_the_host_of_a_machine_with_devices_says_that_it_is_there() -> None:
    state = with_devices(placed("x", LoadState.LOADING, placement=ON_HOST, was_parked=True))
    line = "Loading x on the host (500 MB predicted of 12.0 GB free on the host, its weights are parked)"
    assert loading(state, "x") == line


def test_a_model_loaded_onto_a_device_says_what_all_take_of_its_budget() -> None:
    state = with_devices(placed("x", LoadState.LOADED), placed("y", LoadState.LOADED, sizes=(4,)))
    assert loaded(state, "x", 4.12) == (
        "Loaded x on CUDA0 in 4.1 s: 9.0 GB of CUDA0, budget 13.0 of 24.0 GB; 500 MB of the host, budget 1.0 of 12.0 GB"
    )


def test_an_unload_says_where_the_model_was() -> None:
    state = with_devices(placed("y", LoadState.FREEING, last_used=NOW - 180, load_s=1.5))
    assert (
        freeing(state, freed("y")) == "Unloading y from CUDA0 to make room for x: idle for 3 min, back in about 1.5 s"
    )
    state = with_devices(placed("y", LoadState.FREEING, placement=ON_HOST))
    assert freeing(state, freed("y", why="it was idle for 60 s", reason="idle")) == (
        "Unloading y from the host: it was idle for 60 s"
    )


def test_a_move_says_from_where_to_where() -> None:
    _, faster = placed("y", LoadState.UNLOADED, token_s=0.01)
    assert faster.footprint is not None
    slow = placed("y", LoadState.FREEING, faster.footprint, placement=ON_HOST, token_s=0.1, load_s=1.0)
    effect = freed("y", why="a faster placement has room", reason="move")
    assert freeing(with_devices(slow), effect) == "Moving y from the host to CUDA0: a faster placement has room"


def test_a_parked_model_that_has_to_go_elsewhere_says_why() -> None:
    effect = freed("y", why="it does not fit where its weights are", reason="move")
    line = "Unloading y from CUDA0: it does not fit where its weights are"
    assert freeing(with_devices(placed("y", LoadState.FREEING, was_parked=True)), effect) == line


def test_a_device_without_the_memory_that_was_predicted_is_named() -> None:
    state = with_devices(placed("x", LoadState.LOADING))
    line = "x cannot be loaded on CUDA0, and is put elsewhere: no memory for its context"
    assert fell_back(state, "x", "no memory for its context") == line


def test_requests_that_wait_for_memory_of_a_device_say_which_is_short() -> None:
    busy = placed("y", LoadState.LOADED, sizes=(21,), leases={RequestId(7): 0})
    state = with_devices(placed("x", LoadState.UNLOADED, placement=TWO, sizes=(9, 3), queue=asked()), busy)
    assert waits(state, ()) == {
        "x": "1 request for x waits: it needs 9.0 GB of CUDA0, 3.0 of 24.0 GB is free there; y is busy (1 request)"
    }


def test_each_pool_that_is_short_is_named() -> None:
    full = {"sizes": (21, 7), "placement": TWO, "leases": {RequestId(7): 0}}
    state = with_devices(
        placed("x", LoadState.UNLOADED, placement=TWO, sizes=(9, 3), queue=asked()),
        placed("y", LoadState.LOADED, **full),  # type: ignore[arg-type]
    )
    assert waits(state._replace(budget_bytes=GB * 3 // 4), ()) == {
        "x": "1 request for x waits: it needs 9.0 GB of CUDA0, 3.0 of 24.0 GB is free there, and 3.0 GB of CUDA1, "
        "1.0 of 8.0 GB is free there, and 500 MB of the host, 250 of 750 MB is free there; y is busy (1 request)"
    }


def test_a_load_under_way_that_is_waited_for_names_the_device() -> None:
    state = with_devices(placed("x", LoadState.UNLOADED, queue=asked()), placed("y", LoadState.LOADING, sizes=(20,)))
    assert waits(state, ()) == {
        "x": "1 request for x waits: it needs 9.0 GB of CUDA0, 4.0 of 24.0 GB is free there; y is loading"
    }


def test_a_model_that_moves_waits_for_no_request() -> None:
    move = (Waiter(WaitKind.LOAD, MOVE, 1, NOW, NOW + 9),)
    state = with_devices(placed("x", LoadState.UNLOADED, queue=move), placed("y", LoadState.LOADING, sizes=(20,)))
    assert waits(state, ()) == {}
