"""Each line of the log about a model has the numbers that caused it."""

from __future__ import annotations

import pytest

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.events import Free
from modelyard.yard.residency.state import LoadState, ModelPolicy, ModelState, RequestId, Residency, Waiter, WaitKind
from modelyard.yard.stats.log_lines import failed, freeing, loaded, loading, waits

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
