"""How many nodes a cluster should have."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from modelyard.cluster.scaling import FILLED, HELD, FirstTokens, NodeLoad, load_of, nodes_wanted, sum_of
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.residency.policy import ModelPolicy, WaitPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import RequestId

SLOTS, BUDGET = 32.0, 100.0


def load(nodes: int, waiting: float = 0.0, running: float = 0.0, held: float = 0.0, first_s: float = 0.0) -> NodeLoad:
    return NodeLoad(waiting, running, nodes * SLOTS, nodes * first_s, held, nodes * BUDGET)


@pytest.mark.parametrize(
    ("present", "waiting", "running", "wanted"),
    [(2, 8, 64, 2), (2, 9, 64, 3), (2, 12, 64, 3), (2, 1000, 64, 4), (3, 1, 0, 3), (3, 0, 0, 0), (0, 0, 0, 0)],
)
def test_nodes_join_where_more_waits_than_they_may_and_all_leave_where_nothing_is_asked_for(
    present: int, waiting: int, running: int, wanted: int
) -> None:
    assert nodes_wanted(present, load(present, waiting, running), target_queue=4) == wanted


def test_one_leaves_where_the_others_take_what_runs_and_hold_what_is_in_use() -> None:
    few, held = 2 * SLOTS * FILLED, 2 * BUDGET * HELD
    assert nodes_wanted(3, load(3, running=few, held=held), target_queue=4) == 2
    assert nodes_wanted(3, load(3, running=few + 1, held=held), target_queue=4) == 3
    assert nodes_wanted(3, load(3, running=few, held=held + 1), target_queue=4) == 3
    assert nodes_wanted(1, load(1, running=1), target_queue=4) == 1


@pytest.mark.parametrize(("first_s", "wanted"), [(0.4, 1), (0.9, 2), (1.0, 2), (1.2, 3), (60.0, 4)])
def test_with_a_target_for_the_first_token_that_alone_decides(first_s: float, wanted: int) -> None:
    assert nodes_wanted(2, load(2, running=2, first_s=first_s), target_queue=4, target_first_token_s=1.0) == wanted


def test_requests_that_still_wait_for_their_first_token_count_where_they_are_late() -> None:
    tokens = FirstTokens(lately_s=60.0)
    assert tokens.mean_s(0.0) == 0.0
    tokens.note(1.0, now=0.0)
    tokens.note(3.0, now=50.0)
    assert tokens.mean_s(50.0) == 2.0
    assert tokens.mean_s(50.0, waiting=[0.5, 8.0]) == 4.0
    assert tokens.mean_s(70.0) == 3.0
    assert tokens.mean_s(200.0) == 0.0


def test_a_node_counts_the_memory_of_the_models_that_are_in_use() -> None:
    def model(state: LoadState, last_used: float, **fields: object) -> ModelState:
        footprint = Footprint("file", 30, 10)
        made = ModelState(ModelPolicy(ModelId(""), 8), state, footprint, (footprint,))
        return made._replace(last_used=last_used, **fields)

    models = {
        "busy": model(LoadState.LOADED, 0.0, leases={RequestId(1): 0}),
        "lately": model(LoadState.LOADED, 950.0),
        "long ago": model(LoadState.LOADED, 10.0),
        "unloaded": model(LoadState.UNLOADED, 990.0),
    }
    state = Residency(models, 100, {}, WaitPolicy(), now=1000.0, active=frozenset(models))
    found = load_of(state, 1000.0, 32, 0.5)
    assert found == NodeLoad(0.0, 1.0, 32.0, 0.5, 80.0, 100.0)
    values = {name: [value, value] for name, value in found.values().items()}
    assert sum_of(values) == NodeLoad(0.0, 2.0, 64.0, 1.0, 160.0, 200.0)
    assert sum_of({}) == NodeLoad()


def test_over_a_day_nodes_follow_the_demand_without_swinging() -> None:
    """Minute by minute: a node joins two minutes after it is wanted, and leaves once it was unnecessary for ten."""
    nodes, joining, waiting, unneeded = 0, [0, 0], 0.0, 0
    counts: list[int] = []
    most_waiting = 0.0
    for minute in range(24 * 60):
        hour = minute / 60
        # Requests that are there at the same time: none at night, and up to 200 in the afternoon.
        demand = 0.0 if hour < 6 or hour > 22 else 200 * math.sin(math.pi * (hour - 6) / 16) ** 2
        nodes += joining.pop(0)
        running = min(nodes * SLOTS, demand + waiting)
        waiting = max(0.0, demand + waiting - running)
        most_waiting = max(most_waiting, waiting)
        # Serve starts the first node itself, where a request waits for one.
        wanted = nodes_wanted(nodes, load(nodes, waiting, running, held=20.0), 4.0) if nodes else int(demand > 0)
        joining.append(max(0, wanted - nodes - sum(joining)))
        unneeded = unneeded + 1 if wanted < nodes else 0
        if unneeded >= 10:
            nodes, unneeded = max(wanted, nodes - 1) if wanted else 0, 0
        counts.append(nodes)
    changes = [after - before for before, after in pairwise(counts) if after != before]
    turns = sum((first > 0) != (second > 0) for first, second in pairwise(changes))
    assert counts[0] == counts[-1] == 0
    assert 200 / SLOTS <= max(counts) <= 2 * 200 / SLOTS
    assert turns == 1
    assert most_waiting < 4 * SLOTS
