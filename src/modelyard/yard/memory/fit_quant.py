"""Chooses the quantisations of models together, so that as many as possible are resident at once. Pure.

The rule, for the models that are wanted together:

1. Every model begins with its best type. While the set does not fit, one model gets its next smaller type: the one that
   saves the most bytes for each bit per weight that it loses. No type of less than about four bits is taken. Fast
   placements count first: a model on a device with four bits is preferred to a better one that is computed slowly.
2. Where the set does not fit even so, the models are taken in their order, each with its smallest of these types, as
   they are loaded at the start; those that find no room are left out. The first rule then chooses for the others.
3. A model that is left out gets the best type with which it fits by itself, beside what is pinned: if nothing else
   fits, one of less than four bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.yard.memory.arrangement import arranged
from modelyard.yard.memory.footprint import Footprint

LEAST_BITS: Final = 4.0
"""Bits per weight below which a type is taken only where a model does not fit otherwise."""


SLOWER: Final = 2.0
"""How many times as long as in its best placement a token may take, for a placement to count as a fast one."""


@dataclass(frozen=True, slots=True)
class QuantOption:
    """One type that the weights of a model can have.

    Attributes:
        label: of the type.
        bits: bits per weight, on average.
        choices: the footprints with it in all placements, the best first, with the context that the model should have.
        shortest: the same with the shortest context that it may have.
    """

    label: str
    bits: float
    choices: tuple[Footprint, ...]
    shortest: tuple[Footprint, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of the weights, in the best placement."""
        return self.choices[0].all_weights_bytes


@dataclass(frozen=True, slots=True)
class FittedQuants:
    """The types that were chosen for several models.

    Attributes:
        chosen: by name of the model, the number of the type among its options.
        reasons: by name of the model, why, without a full stop.
        left_out: names of models that are not resident together with the others.
    """

    chosen: Mapping[str, int]
    reasons: Mapping[str, str]
    left_out: tuple[str, ...] = ()


def fit_quants(
    models: Mapping[str, Sequence[QuantOption]],
    budgets: Mapping[str, int],
    beside: Sequence[Footprint] = (),
    pinned: Iterable[str] = (),
) -> FittedQuants:
    """Return the types of models that are wanted together.

    Args:
        models: by name, in the order in which they are loaded, the options of each, the best first; a model whose type
            is not to be chosen has one.
        budgets: bytes of each pool.
        beside: footprints of what is resident in any case.
        pinned: names of the models that stay while another is loaded by itself.
    """
    chosen, fits = _lowered(models, budgets, beside)
    placed: Mapping[str, Footprint] = {}
    if not fits:
        smallest = {name: _shortest(options[chosen[name]]) for name, options in models.items()}
        placed = arranged(smallest, budgets, beside)
        if len(placed) < len(models):
            chosen |= _lowered({name: models[name] for name in placed}, budgets, beside)[0]
    left_out = () if fits else tuple(name for name in models if name not in placed)
    staying = [*beside, *(placed[name] for name in pinned if name in placed)]
    alone = {name: _best_alone(models[name], budgets, staying) for name in left_out}
    is_single = len(models) + len(beside) == 1
    reasons = {
        name: _reason(options, alone.get(name, chosen[name]), is_alone=name in alone, is_single=is_single)
        for name, options in models.items()
    }
    return FittedQuants({name: alone.get(name, chosen[name]) for name in models}, reasons, left_out)


def _lowered(
    models: Mapping[str, Sequence[QuantOption]], budgets: Mapping[str, int], beside: Sequence[Footprint]
) -> tuple[dict[str, int], bool]:
    """Return the options with which the models fit together, or their smallest ones, and whether they fit."""
    for is_quick in (True, False):
        chosen = dict.fromkeys(models, 0)
        while True:
            choices = {name: _choices(options[chosen[name]], is_quick) for name, options in models.items()}
            if len(arranged(choices, budgets, beside)) == len(models):
                return chosen, True
            savings = {name: _saving(options, chosen[name]) for name, options in models.items()}
            # Of equal savings the last model's: the first ones are the most important.
            lowered = max(reversed(list(models)), key=lambda name: savings[name], default="")
            if not lowered or not savings[lowered]:
                break
            chosen[lowered] += 1
    return chosen, False


def _choices(option: QuantOption, is_quick: bool) -> Sequence[Footprint]:
    """Return the placements of an option; those alone that are hardly slower than the best, if ``is_quick``."""
    if not is_quick:
        return option.choices
    return [each for each in option.choices if each.token_s <= SLOWER * option.choices[0].token_s]


def _saving(options: Sequence[QuantOption], present: int) -> float:
    """Return the bytes that the next option saves for each bit that it loses; 0.0 where there is none to take."""
    if present + 1 >= len(options) or options[present + 1].bits < LEAST_BITS:
        return 0.0
    now, then = options[present], options[present + 1]
    return max(now.bytes - then.bytes, 1) / max(now.bits - then.bits, 0.01)


def _shortest(option: QuantOption) -> tuple[Footprint, ...]:
    return option.shortest or option.choices


def _best_alone(options: Sequence[QuantOption], budgets: Mapping[str, int], beside: Sequence[Footprint]) -> int:
    """Return the best option with which a model fits by itself; the smallest where it does not fit with any."""
    for footprints in (lambda option: option.choices, _shortest):
        for number, option in enumerate(options):
            if arranged({"": footprints(option)}, budgets, beside):
                return number
    return len(options) - 1


def _reason(options: Sequence[QuantOption], chosen: int, *, is_alone: bool, is_single: bool) -> str:
    if is_alone and not is_single:
        return "it does not fit beside the others, and is loaded when it is asked for"
    if chosen == 0:
        return "the best there is"
    return f"{'it' if is_single else 'the set'} does not fit the memory with {options[chosen - 1].label}"
