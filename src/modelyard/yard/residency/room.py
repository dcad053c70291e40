"""A model that is to be loaded, and the memory that others take beside it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.ledger import Ledger
from modelyard.yard.residency.state import NO_FOOTPRINT, LoadState, ModelState, Residency


class Demand:
    """A model that is to be loaded, and what takes memory beside it.

    Attributes:
        name, footprint: the model, in the placement that it is to have.
        resident: all other models that take memory, in a stable order.
        pinned: those of them that stay in any case.
        leaving: those of them whose unload has begun.
        kept: bytes of host memory that outlived unloads, by model, in a stable order.
        weights_alone: models that take memory for their weights alone.
        pools: those that the model takes memory of. What others exceed elsewhere is no obstacle.
    """

    def __init__(self, state: Residency, name: str, footprint: Footprint) -> None:
        models = state.models
        self.name, self.footprint = name, footprint
        self.resident = tuple(other for other in state.resident() if other != name)
        self.leaving = tuple(other for other in self.resident if is_leaving(models[other]))
        self.pinned = tuple(
            other for other in self.resident if models[other].policy.is_pinned and not is_leaving(models[other])
        )
        self.kept = {other: models[other].kept_bytes for other in sorted(state.active) if models[other].kept_bytes}
        self.pools = {HOST_NAME, *(share.pool for share in footprint.devices)}
        self._state = state
        self._instead = {name: footprint}
        self.weights_alone = state.weights_alone() - {name}

    def fits_beside(self, models: Iterable[str], kept: Iterable[str], parked: Collection[str] = ()) -> bool:
        """Whether the model fits the budgets beside other models, the kept state of some, and weights alone of some."""
        return not self.exceeded_beside(models, kept, parked)

    def exceeded_beside(self, models: Iterable[str], kept: Iterable[str], parked: Collection[str] = ()) -> list[str]:
        """Return the pools that are too small for the model beside what ``fits_beside`` names."""
        taken = self._state.taken(
            {*models, *parked, self.name}, self.weights_alone.union(parked), instead=self._instead
        )
        taken[HOST_NAME] += sum(self.kept[other] for other in kept)
        return [pool for pool in self._state.exceeded(taken) if pool in self.pools]


class Beside:
    """What stays beside the model that is to be loaded, while victims are chosen, with the memory that it takes.

    Attributes:
        models: that stay.
        kept: models of which kept state stays.
    """

    def __init__(self, state: Residency, demand: Demand, models: Collection[str], kept: Collection[str]) -> None:
        self.models, self.kept = set(models), set(kept)
        self._state, self._demand, self._ledger = state, demand, Ledger()
        self._ledger.add(demand.footprint)
        for name in models:
            self._ledger.add(self._footprint(name), has_context=name not in demand.weights_alone)
        self._ledger.add_host_bytes(sum(demand.kept[name] for name in kept))

    @property
    def fits(self) -> bool:
        """Whether the model fits the budgets beside them."""
        taken = self._ledger.taken
        return all(taken.get(pool, 0) <= self._state.budget_of(pool) for pool in self._demand.pools)

    def evict(self, name: str) -> None:
        """Take a model out."""
        self.models.discard(name)
        self._ledger.remove(self._footprint(name), has_context=name not in self._demand.weights_alone)

    def spare(self, name: str) -> None:
        """Have a victim stay."""
        self.models.add(name)
        self._ledger.add(self._footprint(name), has_context=name not in self._demand.weights_alone)

    def discard(self, name: str) -> None:
        """Take the kept state of a model out."""
        self.kept.discard(name)
        self._ledger.add_host_bytes(-self._demand.kept[name])

    def keep(self, name: str) -> None:
        """Have the kept state of a model stay."""
        self.kept.add(name)
        self._ledger.add_host_bytes(self._demand.kept[name])

    def park(self, name: str) -> bool:
        """Have the weights of a victim stay, where they fit; return whether they do."""
        self._ledger.add(self._footprint(name), has_context=False)
        if not self.fits:
            self._ledger.remove(self._footprint(name), has_context=False)
            return False
        return True

    def _footprint(self, name: str) -> Footprint:
        return self._state.models[name].footprint or NO_FOOTPRINT


def is_leaving(model: ModelState) -> bool:
    """Whether the model gives its memory back by itself: it is being freed, or it is pinned and its unload is queued.

    An unload that waits for the last answer may take long. A model whose unload is queued is therefore evicted like any
    busy one, unless it is pinned.
    """
    return model.load_state is LoadState.FREEING or (model.is_draining and model.policy.is_pinned)
