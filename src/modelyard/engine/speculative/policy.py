"""Decides how many draft tokens pay. Pure.

Based on average costs of steps, not on measured ones: the same request must be drafted for in the same way every time,
because logits depend slightly on the tokens that they are computed with.
"""

from __future__ import annotations

from typing import Final

# Limit of draft tokens of one sequence in a step; the speed-up that drafts must promise; and the cost of each further
# token, in steps of one token: 0.3 to 0.4 on two cores, less where memory is slow (docs/performance.md).
MAX_PROPOSED: Final = 31
MIN_SPEEDUP: Final = 1.15
TOKEN_COST: Final = 0.35

# Limit of tokens of one draft: each costs a step of the draft model, and counts only if all those before it do.
MAX_DRAFTED: Final = 7


def worthwhile(share: float, length: int, expected: float, available: int) -> tuple[int, float]:
    """Return how many draft tokens to add to a step of ``length`` tokens, and how many tokens it is expected to yield.

    Args:
        share: probability that a draft token is accepted, if those before it are.
        length: tokens in the step.
        expected: tokens that the step yields without them.
        available: draft tokens that are available.
    """
    # llama.cpp's kernels take four tokens at a time, so only multiples of four, and the maximum, are tried.
    totals = {*range(4 * (length // 4 + 1), length + available + 1, 4), length + available}
    best, best_rate, yields = 0, MIN_SPEEDUP * expected / relative_cost(length), expected
    for total in sorted(totals - {length}):
        more = _expected_accepted(share, total - length)
        rate = (expected + more) / relative_cost(total)
        if rate > best_rate:
            best, best_rate, yields = total - length, rate, expected + more
    return best, yields


def drafts_worthwhile(share: float, cost: float, sequences: int) -> int:
    """Return how many tokens to draft for each of ``sequences`` that decode together; 0: drafting does not pay.

    Args:
        share: probability that a draft token is accepted, if those before it are.
        cost: cost of a step of the draft model, in steps of the model that verifies.
        sequences: sequences that it drafts for.
    """
    best, best_rate = 0, MIN_SPEEDUP * sequences / relative_cost(sequences)
    for count in range(1, MAX_DRAFTED + 1):
        yields = sequences * (1 + _expected_accepted(share, count))
        rate = yields / (relative_cost(sequences * (count + 1)) + count * cost * relative_cost(sequences))
        if rate > best_rate:
            best, best_rate = count, rate
    return best


def _expected_accepted(share: float, drafted: int) -> float:
    """Return the expected number of accepted tokens among ``drafted``."""
    return share * (1 - share**drafted) / (1 - share) if share < 1 else drafted


def relative_cost(tokens: int) -> float:
    """Return the cost of a step of ``tokens``, in steps of one token."""
    return 1 + TOKEN_COST * (tokens - 1)
