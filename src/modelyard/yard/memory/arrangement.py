"""Puts the models that are wanted together on the devices of a machine. Pure.

The rule, for models in the order in which they are loaded:

1. Each gets its fastest placement that fits beside those before it; of equally fast ones the one with the most memory
   left, so that models on different devices compute at the same time.
2. Where some model would thereby have to take a slower placement than it has by itself, or none, the models are packed
   tightly instead, in their order or the largest first, if that gives each of them its fastest placement.
3. Where no such arrangement is found, each in its order takes the first of its placements that fits, and a model
   without one is left out. Tightly packed models leave the most room for those after them. The largest takes the first
   choice instead, if no model is left out for that, and the tokens of all models take less time: a small model is
   elsewhere at a smaller loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from modelyard.protocol.placement import HOST_NAME, Placement
from modelyard.yard.memory.footprint import Choices, Footprint

# Seconds a token are sums of floats, whose order may differ between two equal devices.
_SAME_SPEED: Final = 1e-6

# Part of the time of the models in their order that another order may take at most, to be worth the loss of the first.
_GAIN: Final = 0.9

_Arrangement: TypeAlias = dict[str, Footprint]


def arranged(
    choices: Mapping[str, Sequence[Footprint]], budgets: Mapping[str, int], beside: Iterable[Footprint] = ()
) -> dict[str, Footprint]:
    """Return the models that can be resident together, each in its placement, in the order to load them in.

    Args:
        choices: by name of the model, its footprints in all placements, the best first.
        budgets: bytes of each pool.
        beside: footprints of what is resident in any case.
    """
    beside = tuple(beside)
    if budgets.keys() <= {HOST_NAME} or len(choices) < 2:
        return _in_order(choices, budgets, beside, _first)
    alone = _fastest_alone(choices, budgets, beside)
    if (spread := _in_order(alone, budgets, beside, _roomiest)).keys() == alone.keys():
        return spread
    if (tight := _in_order(alone, budgets, beside, _first)).keys() == alone.keys():
        return tight
    if (packed := _in_order(_by_size(alone), budgets, beside, _first)).keys() == alone.keys():
        return packed
    in_order = _in_order(choices, budgets, beside, _first)
    by_size = _in_order(_by_size(choices), budgets, beside, _first)
    is_better = by_size.keys() >= in_order.keys() and _seconds(by_size, in_order) < _GAIN * _seconds(in_order, in_order)
    return by_size if is_better else in_order


def arranged_as(
    planned: Mapping[str, Placement | None],
    choices: Mapping[str, Sequence[Footprint]],
    budgets: Mapping[str, int],
    beside: Iterable[Footprint] = (),
) -> dict[str, Footprint]:
    """Return the arrangement that was planned for models, if loads in some order lead there; else as ``arranged``.

    Args:
        planned: by name of the model, its placement; None: none was planned.
        choices, budgets, beside: as of ``arranged``.
    """
    beside = tuple(beside)
    preferred = {name: preferring(tuple(each), planned.get(name)) for name, each in choices.items()}
    for in_order in (preferred, _by_size(preferred)):
        placed = _in_order(in_order, budgets, beside, _first)
        if all(name in placed and placed[name].placement == planned.get(name) for name in choices):
            return placed
    return arranged(choices, budgets, beside)


def is_as_fast(choice: Footprint, other: Footprint) -> bool:
    """Whether a placement computes at least as fast as another one of the model, and is on devices if that one is.

    The host counts as slower than any device: it may be as fast for a small model, and has other models to compute.
    """
    is_faster = choice.token_s <= other.token_s or math.isclose(choice.token_s, other.token_s, rel_tol=_SAME_SPEED)
    return is_faster and (choice.placement.uses_devices or not other.placement.uses_devices)


def preferring(choices: Choices, placement: Placement | None) -> Choices:
    """Return the choices with one placement before all others that are as fast; None: as they are."""
    preferred = next((choice for choice in choices if choice.placement == placement), None)
    if preferred is None:
        return choices
    others = [choice for choice in choices if choice is not preferred]
    faster = [choice for choice in others if not is_as_fast(preferred, choice)]
    return (*faster, preferred, *(choice for choice in others if is_as_fast(preferred, choice)))


def _by_size(choices: Mapping[str, Sequence[Footprint]]) -> dict[str, Sequence[Footprint]]:
    return dict(sorted(choices.items(), key=lambda item: -item[1][0].total_bytes))


def _seconds(placed: _Arrangement, names: Iterable[str]) -> float:
    """Return the time that a token of each of these models takes, together."""
    return sum(placed[name].token_s for name in names)


class _Room:
    """What is left of each pool beside the models that were put there.

    Args:
        budgets: bytes of each pool.
        resident: models that are there in any case.
    """

    def __init__(self, budgets: Mapping[str, int], resident: Iterable[Footprint]) -> None:
        self._left = dict(budgets)
        self._weights: dict[tuple[str, str], int] = {}
        for footprint in resident:
            self.add(footprint)

    def add(self, footprint: Footprint) -> None:
        """Put a model there."""
        for pool, size in self._added(footprint).items():
            self._left[pool] = self._left.get(pool, 0) - size
        self._weights |= self._weights_with(footprint)

    def holds(self, footprint: Footprint) -> bool:
        """Whether a model fits. What others exceed elsewhere is no obstacle."""
        return all(size <= self._left.get(pool, 0) for pool, size in self._added(footprint).items())

    def shares_weights(self, footprint: Footprint) -> bool:
        """Whether the weights of a model are there already, on each of its devices."""
        return all(self._weights.get((share.pool, share.weights_key)) for share in footprint.devices)

    def left_bytes(self, footprint: Footprint) -> int:
        """Return what a model leaves of that of its devices of which it leaves the least."""
        added = self._added(footprint)
        return min((self._left.get(share.pool, 0) - added[share.pool] for share in footprint.devices), default=0)

    def _added(self, footprint: Footprint) -> dict[str, int]:
        added = {HOST_NAME: footprint.context_bytes}
        for share in footprint.devices:
            added[share.pool] = added.get(share.pool, 0) + share.context_bytes
        for (pool, key), size in self._weights_with(footprint).items():
            added[pool] = added.get(pool, 0) + size - self._weights.get((pool, key), 0)
        return added

    def _weights_with(self, footprint: Footprint) -> dict[tuple[str, str], int]:
        """Return the weights that a model needs, at least as large as they are there."""
        needed = {(HOST_NAME, key): size for key, size in footprint.weights.items()}
        for share in footprint.devices:
            place = share.pool, share.weights_key
            needed[place] = max(share.weights_bytes, needed.get(place, 0))
        return {place: max(size, self._weights.get(place, 0)) for place, size in needed.items()}


_Pick: TypeAlias = Callable[[_Room, Sequence[Footprint]], Footprint | None]
"""Returns one of a model's placements that fits; None where none does."""


def _first(room: _Room, choices: Sequence[Footprint]) -> Footprint | None:
    return next((choice for choice in choices if room.holds(choice)), None)


def _roomiest(room: _Room, choices: Sequence[Footprint]) -> Footprint | None:
    """Pick by the memory that is left; a second copy of weights is no gain, though."""
    fitting = [choice for choice in choices if room.holds(choice)]
    return max(fitting, key=lambda choice: (room.shares_weights(choice), room.left_bytes(choice)), default=None)


def _in_order(
    choices: Mapping[str, Sequence[Footprint]], budgets: Mapping[str, int], beside: Iterable[Footprint], pick: _Pick
) -> _Arrangement:
    room, placed = _Room(budgets, beside), _Arrangement()
    for name, footprints in choices.items():
        if (chosen := pick(room, footprints)) is not None:
            placed[name] = chosen
            room.add(chosen)
    return placed


def _fastest_alone(
    choices: Mapping[str, Sequence[Footprint]], budgets: Mapping[str, int], beside: Iterable[Footprint]
) -> dict[str, list[Footprint]]:
    """Return the placements of each model that are as fast as the best it has by itself. A model may have none."""
    room, alone = _Room(budgets, beside), dict[str, list[Footprint]]()
    for name, footprints in choices.items():
        if (best := _first(room, footprints)) is not None:
            alone[name] = [each for each in footprints if is_as_fast(each, best) and room.holds(each)]
    return alone
