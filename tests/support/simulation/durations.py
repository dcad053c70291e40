"""How long things take in a world of the simulation, and how long anybody may wait there."""

from __future__ import annotations

from modelyard.yard.residency.policy import WaitPolicy
from support.simulation.oracle import Oracle

POLICY = WaitPolicy(max_wait_s=100.0, min_residency_s=5.0, residency_per_load=2.0, drain_s=1.0, patience_s=3.0)
MAX_SIZE_S = 0.5
MAX_LOAD_S = 4.0
MAX_FREE_S = 1.0
SLOWNESS = 10.0
"""A slow load takes so many times as long."""


def longest_wait_s(oracle: Oracle, since: float, lag_s: float) -> float:
    """The longest wait of who has waited since then, in a fair world: patience, a turn of each other model, a load.

    A turn: the model is loaded, has its time, yields, is freed, and then its weights. Requests that are out of
    patience are served by age, so no model has two turns before that of a request of its own age, but where a drain
    parts those that are older: one more for each. Timers are late at most once for each of the four.
    """
    stay_s = max(POLICY.min_residency_s, POLICY.residency_per_load * MAX_LOAD_S)
    turn_s = MAX_LOAD_S + stay_s + POLICY.drain_s + 2 * MAX_FREE_S + 4 * lag_s
    drains = sum(done_at >= since for done_at in oracle.drains)
    return POLICY.patience_s + (len(oracle.traits) + drains) * turn_s + MAX_SIZE_S
