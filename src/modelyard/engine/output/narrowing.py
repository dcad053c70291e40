"""Selects the tokens that top-k, top-p and min-p leave to draw from, without sorting the vocabulary.

Hot path: ``narrowed`` and ``drawn`` run once a token. llama.cpp's chain makes a list of all candidates, and computes an
exponential for each, one by one. Here it takes 0.02 to 0.08 ms for 49,152 tokens, most of it to compare each with a
limit.

Where a seed is set, the result must be that of llama.cpp's chain to the last bit. What it leaves depends on sums in 32
bits; where they are so close to a limit that another order of additions could decide otherwise, or where equal logits
leave the order open, ``narrowed`` returns None, and the caller has the chain do it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from modelyard.engine.output.draws import Probabilities

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]

# Tokens are looked at in so many groups, of which only the largest or the sum is computed first.
_GROUPS: Final = 1024

# With the order of the additions, sums of so many numbers of 32 bits differ by less than the margin.
_MAX_EXACT: Final = 512
_MARGIN: Final = 1e-5

# A token with less than this part of the probability is rarely within the nucleus.
_RARE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Narrowing:
    """How a request narrows the distribution, in llama.cpp's order.

    Attributes:
        top_k: number of the most likely tokens that are left; 0: all.
        top_p: the most likely tokens are left that have this probability together; 1: all.
        min_p: tokens are left that have this part of the probability of the most likely one; 0: all.
        temperature: logits are divided by it at last.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    temperature: float = 1.0

    @property
    def leaves_all(self) -> bool:
        """Whether all tokens are left."""
        return not self.top_k and self.top_p >= 1 and self.min_p <= 0


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens that are left.

    Attributes:
        ids: their ids; None: all tokens are left.
        logits: divided by the temperature.
        is_sorted: whether they are in the order of their logits, the highest first; else of their ids.
    """

    ids: Places | None
    logits: Floats
    is_sorted: bool

    def token(self, place: int) -> int:
        """Return the id of a candidate."""
        return place if self.ids is None else int(self.ids[place])

    def probabilities(self, vocab_size: int) -> Probabilities:
        """Return the probability of each token of the vocabulary."""
        weights: Probabilities = np.exp(self.logits - self.logits.max(), dtype=np.float64)
        weights /= weights.sum()
        if self.ids is None:
            return weights
        probabilities = np.zeros(vocab_size)
        probabilities[self.ids] = weights
        return probabilities


def narrowed(logits: Floats, narrowing: Narrowing, *, is_exact: bool) -> Candidates | None:
    """Return the tokens that are left of a row of [vocab_size] logits, of which one at least is finite.

    Args:
        logits: the row, which stays as it is.
        narrowing: what the request asks for.
        is_exact: whether the result must be that of llama.cpp; None where that cannot be told, or where all tokens are
            left.
    """
    left = Candidates(None, logits, is_sorted=False)
    if narrowing.top_k >= len(logits) and is_exact:
        return None
    if 0 < narrowing.top_k < len(logits):
        found = _most_likely(left, narrowing.top_k, is_exact=is_exact)
        if found is None:
            return None
        left = found
    if narrowing.top_p < 1:
        found = _nucleus(left, np.float32(narrowing.top_p), is_exact=is_exact)
        if found is None:
            return None
        left = found
    if narrowing.min_p > 0:
        found = _likely_enough(left, np.float32(narrowing.min_p), is_exact=is_exact)
        if found is None:
            return None
        left = found
    if is_exact and left.ids is None:
        return None
    if narrowing.temperature != 1:
        left = Candidates(left.ids, left.logits / np.float32(narrowing.temperature), left.is_sorted)
    return left


def drawn_of_all(logits: Floats, temperature: float, random: Callable[[], float]) -> int:
    """Draw from all tokens, and compute the probabilities of the likely ones only.

    All others together are taken for as likely as the most likely token, and drawn evenly; such a token is then kept as
    often as it is less likely than was assumed, or else another is drawn. So each token is drawn as often as it is
    likely, to the last bit of its probability, and on the average after less than two attempts.

    Args:
        logits: a row of [vocab_size], of which one at least is finite.
        temperature: above 0.
        random: returns a random number, evenly distributed from 0 to below 1.
    """
    count = len(logits)
    highest = float(logits.max())
    floor = np.float32(highest - temperature * math.log(count))
    likely = np.flatnonzero(logits >= floor)
    if len(likely) > count // 8:
        return drawn(Candidates(None, logits / np.float32(temperature), is_sorted=False), random())
    totals = np.exp((logits[likely] - np.float32(highest)) / np.float32(temperature)).cumsum(dtype=np.float64)
    while True:
        number = random() * (totals[-1] + 1)
        if number < totals[-1]:
            return int(likely[totals.searchsorted(number, "right")])
        token = int(random() * count)
        logit = float(logits[token])
        if logit < floor and random() < count * math.exp((logit - highest) / temperature):
            return token


def drawn(candidates: Candidates, number: float) -> int:
    """Return the token that ``number``, evenly distributed from 0 to below 1, draws."""
    logits = candidates.logits
    weights = np.exp(logits - logits.max())
    if len(weights) <= 4 * _GROUPS:
        return candidates.token(_place_of(weights, number))
    # The group first, then the token in it: a running sum of all would take most of the time.
    rows = len(weights) // _GROUPS
    grouped, rest = weights[: rows * _GROUPS].reshape(rows, _GROUPS), weights[rows * _GROUPS :]
    sums = np.append(grouped.sum(axis=0), rest.sum())
    totals = sums.cumsum(dtype=np.float64)
    target = number * totals[-1]
    group = min(int(totals.searchsorted(target, "right")), int(np.flatnonzero(sums)[-1]))
    within = max(0.0, (target - (totals[group] - float(sums[group]))) / float(sums[group]))
    if group == _GROUPS:
        return candidates.token(rows * _GROUPS + _place_of(rest, within))
    return candidates.token(_place_of(grouped[:, group], within) * _GROUPS + group)


def _place_of(weights: Floats, number: float) -> int:
    """Return the place that ``number`` draws, of those whose weight is above 0."""
    totals = weights.cumsum(dtype=np.float64)
    place = int(totals.searchsorted(number * totals[-1], "right"))
    # Rounding may take the number to the end.
    return place if place < len(weights) else int(np.flatnonzero(weights)[-1])


def most_likely(values: npt.NDArray[np.floating], count: int) -> Places:
    """Return the places of the ``count`` largest of ``values``, the largest first, equal ones in their order."""
    found = np.flatnonzero(values >= _bound_below(values, count))
    return found[np.argsort(-values[found], kind="stable")[:count]]


def _bound_below(values: npt.NDArray[np.floating], count: int) -> float:
    """Return a number that at least ``count`` of ``values``, and not many more, are not below."""
    if count >= len(values):
        return -math.inf
    rows = len(values) // _GROUPS
    if rows < 4 or count > _GROUPS // 4:
        return float(np.partition(values, len(values) - count)[len(values) - count])
    # So many groups have a largest number that is not below it.
    largest = values[: rows * _GROUPS].reshape(rows, _GROUPS).max(axis=0)
    return float(np.partition(largest, _GROUPS - count)[_GROUPS - count])


def _most_likely(left: Candidates, count: int, *, is_exact: bool) -> Candidates | None:
    """Return the ``count`` most likely candidates, all of them finite."""
    places = most_likely(left.logits, count + 1)
    logits = left.logits[places]
    if logits[-1] == -np.inf:
        finite = int(np.count_nonzero(logits > -np.inf))
        places, logits = places[:finite], logits[:finite]
    if is_exact and _has_equals(logits):
        return None
    return _selected(left, places[:count], logits[:count], is_sorted=True)


def _nucleus(left: Candidates, part: np.float32, *, is_exact: bool) -> Candidates | None:
    """Return the most likely candidates that have the ``part`` of the probability together."""
    if left.is_sorted:
        return _sorted_nucleus(left, part, is_exact=is_exact)
    if is_exact:
        # A sum of the whole vocabulary, one by one, takes as long as the chain.
        return None
    weights = np.exp(left.logits - left.logits.max())
    total = float(weights.sum())
    for limit in _limits(part, len(weights)):
        likely = np.flatnonzero(weights >= limit * total)
        likely_weights = weights[likely]
        # Without their places, which takes a tenth of the time.
        ordered = np.sort(likely_weights)[::-1]
        cut = int(ordered.cumsum(dtype=np.float64).searchsorted(float(part) * total))
        if cut < len(ordered):
            places = likely[likely_weights >= ordered[cut]]
            return _selected(left, places, left.logits[places], is_sorted=False)
    # The part is so close to 1 that the sums cannot tell.
    return left


def _sorted_nucleus(left: Candidates, part: np.float32, *, is_exact: bool) -> Candidates | None:
    """Return the same of sorted candidates, added up as llama.cpp does it: one by one, in 32 bits."""
    logits = left.logits
    weights = np.exp(logits - logits[0])
    totals = np.add.accumulate(weights / np.add.accumulate(weights)[-1])
    cut = int(totals.searchsorted(part))
    if is_exact and (cut == len(totals) or len(totals) > _MAX_EXACT):
        return None
    if cut == len(totals):
        return left
    if is_exact and (totals[cut] - part < _MARGIN or (cut > 0 and part - totals[cut - 1] < _MARGIN)):
        return None
    places = np.arange(cut + 1)
    return _selected(left, places, logits[: cut + 1], is_sorted=True)


def _limits(part: np.float32, count: int) -> tuple[float, float]:
    """Return the probabilities from which on candidates are sorted to find the nucleus; the second are always enough.

    What is below it has less than the rest of the probability, even all of it together.
    """
    return _RARE, 0.5 * (1 - float(part)) / count


def _likely_enough(left: Candidates, part: np.float32, *, is_exact: bool) -> Candidates | None:
    """Return the candidates with at least the ``part`` of the probability of the most likely one."""
    logits = left.logits
    highest = logits.max()
    bound = min(highest, highest + np.float32(math.log(part)))
    if is_exact and np.abs(logits - bound).min() < _MARGIN:
        return None
    places = np.flatnonzero(logits >= bound)
    return _selected(left, places, logits[places], is_sorted=left.is_sorted)


def _selected(left: Candidates, places: Places, logits: Floats, *, is_sorted: bool) -> Candidates:
    return Candidates(places if left.ids is None else left.ids[places], logits, is_sorted)


def _has_equals(sorted_logits: Floats) -> bool:
    return bool((sorted_logits[1:] == sorted_logits[:-1]).any())
