"""Chooses how long the contexts of models are, so that the models fit the memory together. Pure.

The rule: the models that are wanted together are placed with their shortest contexts, in their order, as at the start.
In these placements all contexts then grow alike, up to one common limit, as far as the budgets allow; a context never
grows so far that its model needs a slower placement. A model that has no room beside the others is fitted by itself,
beside what is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.memory.pools import arranged, exceeded_pools

SHORTEST_CONTEXT: Final = 4096
"""Tokens below which no context is shortened."""

CONTEXT_STEP: Final = 1024
"""Shortened contexts are multiples of it."""

SPARE_PART: Final = 0.03
"""Part of each budget that stays free where contexts are shortened: what is predicted is right to about as much."""


@dataclass(frozen=True, slots=True)
class ContextRange:
    """The contexts that one model may have.

    Attributes:
        longest, shortest: tokens; equal where the length is fixed.
        footprints: returns the footprints with a context of so many tokens, one for each placement, the best first. The
            placements are the same for all lengths.
        why: where the longest comes from, as the end of a sentence.
        trial_bytes: of the host, which a trial of the files takes before the engine does. They count where contexts of
            several models are shortened; a model by itself has all the memory for its trial.
    """

    longest: int
    shortest: int
    footprints: Callable[[int], Sequence[Footprint]] = field(repr=False)
    why: str = "as configured"
    trial_bytes: int = 0

    @property
    def with_trial(self) -> ContextRange:
        """The same with footprints that have room for the trial."""

        def footprints(length: int) -> list[Footprint]:
            return [each.with_context(each.context_bytes + self.trial_bytes) for each in self.footprints(length)]

        return replace(self, footprints=footprints)

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.shortest >= self.longest


@dataclass(frozen=True, slots=True)
class FittedContext:
    """The context that was chosen for a model.

    Attributes:
        length: tokens.
        reason: why it is so long, without a full stop.
        is_shortened: whether the model would have had a longer one with more memory.
    """

    length: int
    reason: str
    is_shortened: bool = False


def fit_together(
    models: Mapping[str, ContextRange],
    budgets: Mapping[str, int],
    beside: Sequence[Footprint] = (),
    pinned: Iterable[str] = (),
) -> dict[str, FittedContext]:
    """Return the contexts of models that are wanted together, by their names.

    Args:
        models: in the order in which they are loaded.
        budgets: bytes of each pool.
        beside: footprints of what is resident in any case.
        pinned: names of the models that stay while another is loaded by itself.
    """
    if all(each.is_fixed for each in models.values()):
        return {name: FittedContext(each.longest, each.why) for name, each in models.items()}
    if _fit_whole(models, budgets, beside):
        return {name: FittedContext(each.longest, each.why) for name, each in models.items()}
    tried = {name: each.with_trial for name, each in models.items()}
    placed = arranged({name: each.footprints(each.shortest) for name, each in tried.items()}, budgets, beside)
    together = {name: tried[name] for name in placed}
    limit, short = _common_limit(together, placed, budgets, beside)
    pool = "" if not short or HOST_NAME in short else f" of {short[0]}"
    others = "the models that are loaded at the start fit" if len(placed) > 1 or beside else "it fits"
    chosen = {
        name: _fitted(each, _length(each, limit), f", so that {others} the memory{pool}")
        for name, each in together.items()
    }
    staying = [
        *beside,
        *(
            _in_place_of(placed[name], models[name].footprints(chosen[name].length))
            for name in pinned
            if name in placed and len(placed) < len(models)
        ),
    ]
    return {name: chosen.get(name) or fit_alone(each, budgets, staying) for name, each in models.items()}


def fit_alone(model: ContextRange, budgets: Mapping[str, int], beside: Sequence[Footprint] = ()) -> FittedContext:
    """Return the context of a model that is loaded by itself.

    Args:
        model: the model.
        budgets: bytes of each pool.
        beside: footprints of what is resident in any case, such as pinned models.
    """
    if model.is_fixed:
        return FittedContext(model.longest, model.why)
    placed = arranged({"": model.footprints(model.shortest)}, budgets, beside)
    if not placed:
        return _fitted(model, model.shortest, " as far as it may be, and does not fit the memory even so")
    limit, _ = _common_limit({"": model}, placed, budgets, beside)
    return _fitted(model, _length(model, limit), ", so that it fits the memory")


def _fit_whole(models: Mapping[str, ContextRange], budgets: Mapping[str, int], beside: Sequence[Footprint]) -> bool:
    """Whether all models fit with their longest contexts, in the placements that they have with their shortest."""
    placed = arranged({name: each.footprints(each.shortest) for name, each in models.items()}, budgets, beside)
    if len(placed) < len(models):
        return False
    whole = [_in_place_of(placed[name], each.footprints(each.longest)) for name, each in models.items()]
    return not exceeded_pools((*beside, *whole), budgets)


def _common_limit(
    models: Mapping[str, ContextRange],
    placed: Mapping[str, Footprint],
    budgets: Mapping[str, int],
    beside: Sequence[Footprint],
) -> tuple[int, tuple[str, ...]]:
    """Return the largest limit of all contexts with which the models fit, and the pools that allow no larger one.

    Args:
        models: the models, which fit with their shortest contexts.
        placed: their placements.
        budgets: bytes of each pool.
        beside: footprints of what is resident in any case.
    """
    known: dict[tuple[str, int], Footprint] = {}

    def lacking(limit: int, bounds: Mapping[str, int]) -> tuple[str, ...]:
        for name, each in models.items():
            place = name, _length(each, limit)
            if place not in known:
                known[place] = _in_place_of(placed[name], each.footprints(place[1]))
        return exceeded_pools((*beside, *(known[name, _length(each, limit)] for name, each in models.items())), bounds)

    longest = max((each.longest for each in models.values() if not each.is_fixed), default=0)
    if not lacking(longest, budgets):
        return longest, ()
    spared = {pool: int(size * (1 - SPARE_PART)) for pool, size in budgets.items()}
    fits, lacks = SHORTEST_CONTEXT // CONTEXT_STEP, -(-longest // CONTEXT_STEP)
    while lacks - fits > 1:
        middle = (fits + lacks) // 2
        if lacking(middle * CONTEXT_STEP, spared):
            lacks = middle
        else:
            fits = middle
    return fits * CONTEXT_STEP, lacking(lacks * CONTEXT_STEP, spared)


def _length(model: ContextRange, limit: int) -> int:
    return max(model.shortest, min(model.longest, limit))


def _in_place_of(placed: Footprint, choices: Sequence[Footprint]) -> Footprint:
    """Return the footprint of ``choices`` in the placement of ``placed``."""
    return next((each for each in choices if each.placement == placed.placement), placed)


def _fitted(model: ContextRange, length: int, why: str) -> FittedContext:
    if length >= model.longest:
        return FittedContext(model.longest, model.why)
    return FittedContext(length, f"shortened from {model.longest:,}{why}", is_shortened=True)
