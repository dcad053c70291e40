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
        smaller: footprints with what they are about to shrink to, or with the smallest context, of all others that may
            have one.
        shrinking: those of them that are about to give back a part of their contexts.
        is_resizing: whether any context is being resized, after which more memory is free.
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
        self.kept = {other: size for other in sorted(state.active) if (size := models[other].lasting_bytes)}
        self.pools = {HOST_NAME, *(share.pool for share in footprint.devices)}
        self._state = state
        self._instead = {name: footprint}
        self.weights_alone = state.weights_alone() - {name}
        resizing = {other: given for other in self.resident if (given := models[other].resizing) is not None}
        self.is_resizing = bool(resizing)
        self.smaller = {
            other: footprint_of(models[other]).with_cells(resizing[other].cells if other in resizing else 0)
            for other in self.resident
            if footprint_of(models[other]).sizes
        }
        self.shrinking = {other for other in resizing if self.smaller[other].cells < footprint_of(models[other]).cells}

    @property
    def fits_ever(self) -> bool:
        """Whether the model fits beside the pinned ones, each with the whole context that was promised."""
        instead = {other: footprint_of(self._state.models[other]).whole for other in self.pinned}
        instead[self.name] = self.footprint.whole
        taken = self._state.taken({*self.pinned, self.name}, self.weights_alone, instead=instead)
        return self.pools.isdisjoint(self._state.exceeded(taken))

    @property
    def fits_now(self) -> bool:
        """Whether the model fits beside everything that takes memory."""
        taken = self._state.taken({*self.resident, self.name}, self.weights_alone, instead=self._instead)
        taken[HOST_NAME] += self._state.kept_bytes
        return self.pools.isdisjoint(self._state.exceeded(taken))

    def fits_beside(self, models: Iterable[str], kept: Iterable[str], parked: Collection[str] = ()) -> bool:
        """Whether the model fits the budgets beside other models, the kept state of some, and weights alone of some."""
        return not self.exceeded_beside(models, kept, parked)

    def exceeded_beside(self, models: Iterable[str], kept: Iterable[str], parked: Collection[str] = ()) -> list[str]:
        """Return the pools that are too small for the model beside what ``fits_beside`` names."""
        instead = self._instead | {other: self.smaller[other] for other in self.shrinking}
        taken = self._state.taken({*models, *parked, self.name}, self.weights_alone.union(parked), instead=instead)
        taken[HOST_NAME] += sum(self.kept[other] for other in kept)
        return [pool for pool in self._state.exceeded(taken) if pool in self.pools]


class Beside:
    """What stays beside the model that is to be loaded, while victims are chosen, with the memory that it takes.

    Attributes:
        models: that stay.
        kept: models of which kept state stays.
        shrunk: models that give back a part of their contexts.
    """

    def __init__(self, state: Residency, demand: Demand, models: Collection[str], kept: Collection[str]) -> None:
        self.models, self.kept = set(models), set(kept)
        self.shrunk: set[str] = set()
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

    def shrink(self, name: str) -> None:
        """Have a model give back a part of its context."""
        self._ledger.remove(self._footprint(name))
        self.shrunk.add(name)
        self._ledger.add(self._footprint(name))

    def restore_size(self, name: str) -> None:
        """Have the context of a model stay as it is."""
        if name in self.models:
            self._ledger.remove(self._footprint(name))
        self.shrunk.discard(name)
        if name in self.models:
            self._ledger.add(self._footprint(name))

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
        if name in self.shrunk or name in self._demand.shrinking:
            return self._demand.smaller[name]
        return footprint_of(self._state.models[name])


def footprint_of(model: ModelState) -> Footprint:
    """Return what the model takes; nothing where that is not known."""
    return model.footprint or NO_FOOTPRINT


def may_shrink(model: ModelState) -> bool:
    """Whether a model can be asked to give back a part of its context; a busy one gives only what it does not need."""
    footprint = footprint_of(model)
    return (
        model.load_state is LoadState.LOADED
        and footprint.smallest.cells < footprint.cells
        and model.resizing is None
        and model.growth is None
        and model.makes_room_since is None
        and not model.keeps_size
    )


def is_leaving(model: ModelState) -> bool:
    """Whether the model gives its memory back by itself: it is being freed, or it is pinned and its unload is queued.

    An unload that waits for the last answer may take long. A model whose unload is queued is therefore evicted like any
    busy one, unless it is pinned.
    """
    return model.load_state is LoadState.FREEING or (model.has_unload_next and model.policy.is_pinned)
