"""Files that change under a model: what was made of the old ones ends, and the next load looks at the new ones.

Weights are mapped: a file that is written over changes what an engine computes in the middle of an answer, and one that
is cut off ends it. So the model is taken out of service at once, and nothing of it is kept. A file that was replaced
stays whole for the engine that has it mapped; only the next load meets another one.
"""

from __future__ import annotations

from modelyard.errors import ModelFileChanged
from modelyard.yard.residency.builder import StateBuilder
from modelyard.yard.residency.events import Abort, FilesReplaced, FilesWrittenOver
from modelyard.yard.residency.state import LoadState, ModelState, WaitKind


def written_over(builder: StateBuilder, model: ModelState, event: FilesWrittenOver) -> None:
    """End all that was begun with what the files had, and free the model."""
    if model.is_stale or not model.is_resident:
        # Nothing is mapped any more: the next load looks at the files in any case.
        return
    name = event.model
    _end_what_was_begun(builder, name, model._replace(is_stale=True), event.file)
    if model.load_state is not LoadState.FREEING:
        builder.free(name, suspends=False, why=f"the file {event.file} was written over", reason="changed")


def replaced(builder: StateBuilder, model: ModelState, event: FilesReplaced) -> None:
    """The load did not begin: the files are not those that were looked at. They are looked at again."""
    if model.load_state is not LoadState.LOADING:
        return
    _end_what_was_begun(builder, event.model, refreshed(model), event.file)


def refreshed(model: ModelState) -> ModelState:
    """The model, unloaded, of whose files nothing is known."""
    return model._replace(load_state=LoadState.UNLOADED, footprint=None, was_parked=False, is_stale=False)


def _end_what_was_begun(builder: StateBuilder, name: str, model: ModelState, file: str) -> None:
    """Requests that have tokens of the old weights cannot go on with others. Those that have none wait on."""
    begun = [*model.leases, *(waiter.request for waiter in model.queue if waiter.kind is WaitKind.RESUME)]
    queue = tuple(waiter for waiter in model.queue if waiter.kind is not WaitKind.RESUME)
    last_used = builder.state.now if model.leases else model.last_used
    model = builder.set_model(name, model._replace(queue=queue, leases={}, last_used=last_used))
    error = ModelFileChanged(model.policy.name, file)
    builder.effects += [Abort(name, request, error) for request in sorted(begun)]
    if model.prefix_bytes:
        builder.discard_kept(name)
