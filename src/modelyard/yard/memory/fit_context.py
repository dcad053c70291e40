"""Chooses how long the contexts of models are, so that the models fit the memory together. Pure.

The rule: the models that are wanted together are arranged with their shortest contexts, as at the start. All contexts
then grow alike, up to one common limit, as far as the budgets allow. Models may change to other devices for that, but a
context never grows so far that its model needs a slower placement. A model that has no room beside the others is fitted
by itself, beside what is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from modelyard.protocol.placement import HOST_NAME, Placement
from modelyard.yard.memory.arrangement import arranged, is_as_fast
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.memory.pools import exceeded_pools

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
        """This range with footprints that have room for the trial."""

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
        placement: where the model has that length beside the others; None where it was fitted by itself, or its length
            is fixed.
    """

    length: int
    reason: str
    is_shortened: bool = False
    placement: Placement | None = None


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
    if (whole := _fit_whole(models, budgets, beside)) is not None:
        return {
            name: FittedContext(each.longest, each.why, placement=whole[name].placement)
            for name, each in models.items()
        }
    tried = {name: each.with_trial for name, each in models.items()}
    placed = arranged({name: each.footprints(each.shortest) for name, each in tried.items()}, budgets, beside)
    grown = _Growth({name: tried[name] for name in placed}, placed, beside)
    limit, short = grown.limit(budgets)
    pool = "" if not short or HOST_NAME in short else f" of {short[0]}"
    others = "the models that are loaded at the start fit" if len(placed) > 1 or beside else "it fits"
    chosen = {
        name: replace(
            _fitted(tried[name], _length(tried[name], limit), f", so that {others} the memory{pool}"),
            placement=grown.placed[name].placement,
        )
        for name in placed
    }
    staying = [
        *beside,
        *(
            _in_place_of(grown.placed[name], models[name].footprints(chosen[name].length))
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
    limit, _ = _Growth({"": model}, placed, beside).limit(budgets)
    return _fitted(model, _length(model, limit), ", so that it fits the memory")


def _fit_whole(
    models: Mapping[str, ContextRange], budgets: Mapping[str, int], beside: Sequence[Footprint]
) -> Mapping[str, Footprint] | None:
    """Return the arrangement with the longest contexts; None where there is none as fast as with the shortest."""
    placed = arranged({name: each.footprints(each.shortest) for name, each in models.items()}, budgets, beside)
    if len(placed) < len(models):
        return None
    grown = _Growth(models, placed, beside)
    return grown.placed if not grown.lacking(None, budgets) else None


class _Growth:
    """Models whose contexts grow together from their shortest ones.

    Args:
        models: the models, which fit with their shortest contexts.
        placed: their placements.
        beside: footprints of what is resident in any case.

    Attributes:
        placed: the footprints with the largest limit that was found to fit.
    """

    def __init__(
        self, models: Mapping[str, ContextRange], placed: Mapping[str, Footprint], beside: Sequence[Footprint]
    ) -> None:
        self.placed = placed
        self._models = models
        self._beside = beside
        self._allowed = {
            name: {choice.placement for choice in each.footprints(each.shortest) if is_as_fast(choice, placed[name])}
            for name, each in models.items()
        }
        self._known: dict[tuple[str, int], Sequence[Footprint]] = {}

    def limit(self, budgets: Mapping[str, int]) -> tuple[int, tuple[str, ...]]:
        """Return the largest limit of all contexts with which the models fit, and pools that allow no larger one."""
        longest = max((each.longest for each in self._models.values() if not each.is_fixed), default=0)
        if not self.lacking(longest, budgets):
            return longest, ()
        spared = {pool: int(size * (1 - SPARE_PART)) for pool, size in budgets.items()}
        fits, lacks = SHORTEST_CONTEXT // CONTEXT_STEP, -(-longest // CONTEXT_STEP)
        short: tuple[str, ...] = ()
        while lacks - fits > 1:
            middle = (fits + lacks) // 2
            if lacking := self.lacking(middle * CONTEXT_STEP, spared):
                lacks, short = middle, lacking
            else:
                fits = middle
        return fits * CONTEXT_STEP, short or self.lacking(lacks * CONTEXT_STEP, spared)

    def lacking(self, limit: int | None, budgets: Mapping[str, int]) -> tuple[str, ...]:
        """Return the pools in which the models lack room with a limit; None: with their longest contexts.

        If they fit, they are put where they do.
        """
        lengths = {name: each.longest if limit is None else _length(each, limit) for name, each in self._models.items()}
        choices = {name: self._choices(name, length) for name, length in lengths.items()}
        same = {name: _in_place_of(self.placed[name], found) for name, found in choices.items()}
        short = exceeded_pools((*self._beside, *same.values()), budgets)
        if short:
            same = arranged(choices, budgets, self._beside)
            if len(same) < len(self._models):
                return short
        self.placed = same
        return ()

    def _choices(self, name: str, length: int) -> Sequence[Footprint]:
        """Return the footprints in the placements that are fast enough, the best first."""
        if (name, length) not in self._known:
            found = self._models[name].footprints(length)
            self._known[name, length] = [each for each in found if each.placement in self._allowed[name]]
        return self._known[name, length]


def _length(model: ContextRange, limit: int) -> int:
    return max(model.shortest, min(model.longest, limit))


def _in_place_of(placed: Footprint, choices: Sequence[Footprint]) -> Footprint:
    """Return the footprint of ``choices`` in the placement of ``placed``."""
    return next((each for each in choices if each.placement == placed.placement), placed)


def _fitted(model: ContextRange, length: int, why: str) -> FittedContext:
    if length >= model.longest:
        return FittedContext(model.longest, model.why)
    return FittedContext(length, f"shortened from {model.longest:,}{why}", is_shortened=True)
