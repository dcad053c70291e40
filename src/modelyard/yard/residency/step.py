"""The residency machine: ``step`` makes the next state and says what is to be done."""

from __future__ import annotations

from modelyard.yard.residency.builder import Draft
from modelyard.yard.residency.events import (
    Effect,
    Event,
    Tick,
)
from modelyard.yard.residency.reconcile import settle
from modelyard.yard.residency.state import (
    Residency,
)
from modelyard.yard.residency.transitions import take


def step(state: Residency, event: Event) -> tuple[Residency, list[Effect]]:
    """Advance the residency of all models by one event.

    Pure: no clock, no I/O. Time enters as ``Tick(now)``. The conductor runs the effects, in order, and feeds their
    outcomes back as events. It feeds a Tick, at the latest, when the state's ``due_at`` has come.
    """
    draft = Draft(state)
    take(draft, event)
    settle(draft)
    return draft.done(), draft.effects


def at(state: Residency, now: float) -> tuple[Residency, list[Effect]]:
    """The same as ``step`` with a Tick, for next to nothing where nothing is due."""
    if now < state.due_at:
        return state._replace(now=now), []
    return step(state, Tick(now))
