"""Files that change while a model is resident: what was computed with the old ones ends, the next load reads the new.

Weights are mapped: a file that is written over changes what an engine computes in the middle of an answer, and a
truncated one ends its process. So the model is taken out of service at once, and nothing of it is kept. A file that was
replaced stays whole for the engine that has it mapped; only the next load reads the new file.
"""

from __future__ import annotations

from modelyard.errors import ModelFileChanged
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.effects import Abort
from modelyard.yard.residency.events import FilesReplaced, FilesWrittenOver
from modelyard.yard.residency.state import LoadState, ModelState
from modelyard.yard.residency.waiting import WaitKind


def written_over(builder: StateBuilder, model: ModelState, event: FilesWrittenOver) -> None:
    """End all requests that were begun with the old contents, and free the model."""
    if model.is_stale or not model.is_resident:
        # Nothing is mapped any more, and the next load reads the files in any case.
        return
    name = event.model
    _end_started(builder, name, model._replace(is_stale=True), event.file)
    if model.load_state is not LoadState.FREEING:
        builder.free(name, suspends=False, why=f"the file {event.file} was written over", reason="changed")


def replaced(builder: StateBuilder, model: ModelState, event: FilesReplaced) -> None:
    """Size the model again: its load did not begin, because the files are not those that were sized."""
    if model.load_state is not LoadState.LOADING:
        return
    _end_started(builder, event.model, refreshed(model), event.file)


def refreshed(model: ModelState) -> ModelState:
    """Return the model, unloaded, as one whose files were never read."""
    return model._replace(
        load_state=LoadState.UNLOADED,
        footprint=None,
        choices=(),
        has_fallen_back=False,
        was_parked=False,
        is_stale=False,
    )


def _end_started(builder: StateBuilder, name: str, model: ModelState, file: str) -> None:
    """Abort the requests that have tokens of the old weights, and cannot go on with others. The rest waits on."""
    started = [*model.leases, *(waiter.request for waiter in model.queue if waiter.kind is WaitKind.RESUME)]
    queue = tuple(waiter for waiter in model.queue if waiter.kind is not WaitKind.RESUME)
    last_used = builder.state.now if model.leases else model.last_used
    model = builder.set_model(name, model._replace(queue=queue, leases={}, last_used=last_used))
    error = ModelFileChanged(model.policy.name, file)
    builder.effects += [Abort(name, request, error) for request in sorted(started)]
    if model.prefix_bytes:
        builder.discard_kept(name)
