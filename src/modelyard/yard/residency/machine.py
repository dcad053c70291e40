"""The residency machine: ``step`` returns the next state and the effects to run."""

from __future__ import annotations

from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.effects import Effect
from modelyard.yard.residency.events import ResidencyEvent, Tick
from modelyard.yard.residency.reconcile import reconcile
from modelyard.yard.residency.state import (
    Residency,
)
from modelyard.yard.residency.transitions import apply_event


def step(state: Residency, event: ResidencyEvent) -> tuple[Residency, list[Effect]]:
    """Advance the residency of all models by one event.

    Pure: no clock, no I/O. Time enters as ``Tick(now)``. The lifecycle controller runs the effects in order, and feeds
    their outcomes back as events. It feeds a Tick at the state's ``due_at`` at the latest.
    """
    builder = StateBuilder(state)
    apply_event(builder, event)
    reconcile(builder)
    return builder.build(), builder.effects


def advance_clock(state: Residency, now: float) -> tuple[Residency, list[Effect]]:
    """Advance the residency by a Tick; next to free where nothing is due."""
    if now < state.due_at:
        return state._replace(now=now), []
    return step(state, Tick(now))
