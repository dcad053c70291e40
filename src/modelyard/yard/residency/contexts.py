"""Contexts that grow and shrink while their models serve: what engines report of them.

A larger context that is needed is waited for like a load (``allocation``), by the same ranks and turns; one that would
only be of use is given where it is free.
"""

from __future__ import annotations

from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.events import EngineResized, GrowthWanted
from modelyard.yard.residency.growth import largest_free
from modelyard.yard.residency.room import footprint_of
from modelyard.yard.residency.state import LoadState, ModelState
from modelyard.yard.residency.waiting import Growth


def want_context(builder: StateBuilder, model: ModelState, event: GrowthWanted) -> None:
    """Note that a model waits for a larger context, or give it one that would only be of use, where no other waits."""
    present = footprint_of(model)
    if model.load_state is not LoadState.LOADED or not present.sizes:
        return
    if present.with_cells(event.needed).cells > present.cells:
        before = model.growth
        order, since = (before.order, before.since) if before else (builder.next_order(), builder.state.now)
        growth = Growth(event.needed, event.desired, order, since)
        builder.set_model(event.model, model._replace(growth=growth))
        return
    builder.set_model(event.model, model._replace(growth=None))
    is_anyone_waiting = any(
        other.is_waited_for or other.growth for other in map(builder.models.get, builder.active) if other
    )
    if (
        model.resizing is not None
        or model.makes_room_since is not None
        or is_anyone_waiting
        or builder.state.is_closing
    ):
        return
    larger = largest_free(builder.state, event.model, present, event.desired)
    if larger is not None:
        builder.resize(event.model, larger)


def resized(builder: StateBuilder, model: ModelState, event: EngineResized) -> None:
    """Count the context as it is. One that is needed as it is does not shrink before a request ends."""
    if model.resizing is None:
        return
    # Growth that is waited for stays: it needs more than was asked of the engine.
    builder.set_model(
        event.model,
        model._replace(
            footprint=footprint_of(model).with_cells(event.cells),
            promised_bytes=max(0, model.promised_bytes - model.resizing.kept_bytes),
            resizing=None,
            keeps_size=model.resizing.is_needed or event.cells > model.resizing.cells,
        ),
    )
