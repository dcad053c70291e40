"""Publishes changes of models to observers: every change of load state, and the progress of loads."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.hub.sources.listing import Progress
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.stats.broadcast import Broadcaster
from modelyard.yard.stats.placement_text import placement_of_model

_COMING = frozenset({LoadState.SIZING, LoadState.LOADING})
_PLACED = frozenset({LoadState.LOADING, LoadState.LOADED})


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A change of a model.

    Attributes:
        model: its id.
        load_state: its load state; None: it was removed.
        progress: from 0 to 1, of the weights that are read while it loads, or of ``step``.
        reason: why it failed; None where it did not.
        step: what is done to its files before it loads, such as "downloading".
        restarts, last_death: how many of its engines have died, and why the last one did; None unless the change is
            the death of an engine.
        placement: where it is loaded, in words; "" for a model that does not load or serve, and on a machine without
            devices.
    """

    model: str
    load_state: LoadState | None
    progress: float | None = None
    reason: str | None = None
    step: str | None = None
    restarts: int | None = None
    last_death: str | None = None
    placement: str = ""


def _supersedes(before: StatusChange, change: StatusChange) -> bool:
    """Whether ``change`` is newer progress of the same model."""
    return before.progress is not None and before.model == change.model and change.progress is not None


class StatusBroadcaster(Broadcaster[StatusChange]):
    """All observers of one yard. Use it on the yard's event loop."""

    def __init__(self) -> None:
        super().__init__("the events of models", _supersedes)

    def compare(self, before: Residency, after: Residency) -> None:
        """Publish every model whose load state has changed, or whose engine has died."""
        if not self._observers:
            return

        def order(name: str) -> tuple[bool, str]:
            """Sort models that are unloaded before those that are loaded in their place."""
            return name in after.models and after.models[name].load_state in _COMING, name

        # A model that is at rest in both states can only have been added or removed.
        names = before.active | after.active | (before.models.keys() ^ after.models.keys())
        for name in sorted(names, key=order):
            old, new = before.models.get(name), after.models.get(name)
            if new is None:
                assert old is not None
                self.publish(StatusChange(old.policy.name, None))
            elif old is not None and old.restarts != new.restarts:
                died = StatusChange(
                    new.policy.name, new.load_state, None, new.failure, None, new.restarts, new.last_death
                )
                self.publish(died)
            elif old is None or old.load_state is not new.load_state:
                placement = placement_of_model(after, new) if new.load_state in _PLACED else ""
                self.publish(StatusChange(new.policy.name, new.load_state, reason=new.failure, placement=placement))

    def progress(self, model: str, fraction: float) -> None:
        """Publish the progress of the load of ``model``."""
        self.publish(StatusChange(model, LoadState.LOADING, progress=fraction))

    def preparing(self, model: str, progress: Progress) -> None:
        """Publish the progress of preparing the files of ``model``."""
        self.publish(StatusChange(model, LoadState.SIZING, progress=progress.fraction, step=progress.step))

    def prepared(self, model: ModelState) -> None:
        """Publish the load state of ``model`` again, which the progress of preparing its files has covered."""
        self.publish(StatusChange(model.policy.name, model.load_state, reason=model.failure))
