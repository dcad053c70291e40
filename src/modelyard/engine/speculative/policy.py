"""What guessed tokens are worth. Pure.

By what a step costs on the average, not by what was measured: the same request is to be guessed at in the same way
every time, because logits depend a little on the tokens that they are computed with.
"""

from __future__ import annotations

from typing import Final

# Most guessed tokens of one sequence in a step, how much faster than without them it has to be, and what each token
# more costs of a step of one: 0.3 to 0.4 on two cores, less where memory is slow (docs/performance.md).
MAX_PROPOSED: Final = 31
WORTH: Final = 1.15
ANOTHER_TOKEN: Final = 0.35

# Most tokens that a draft model says at a time: each costs a step of it, and is as good as all those before it.
MAX_DRAFTED: Final = 7


def worthwhile(share: float, length: int, expected: float, most: int) -> tuple[int, float]:
    """How many guesses to add to a step of ``length`` tokens, and how many tokens it is then expected to yield.

    Args:
        share: the probability of a guess, if those before it hold.
        length: tokens in the step.
        expected: tokens that it yields.
        most: guesses that there are.
    """
    # llama.cpp's kernels take four tokens at a time.
    totals = {*range(4 * (length // 4 + 1), length + most + 1, 4), length + most}
    best, best_rate, yields = 0, WORTH * expected / relative_cost(length), expected
    for total in sorted(totals - {length}):
        more = _expected_accepted(share, total - length)
        rate = (expected + more) / relative_cost(total)
        if rate > best_rate:
            best, best_rate, yields = total - length, rate, expected + more
    return best, yields


def drafts_worthwhile(share: float, cost: float, sequences: int) -> int:
    """How many tokens a draft model is to say for each of ``sequences`` that decode together; 0: it is not worth it.

    Args:
        share: the probability that a drafted token holds, if those before it do.
        cost: of a step of the draft model, in steps of the model that verifies.
        sequences: for which it drafts.
    """
    best, best_rate = 0, WORTH * sequences / relative_cost(sequences)
    for count in range(1, MAX_DRAFTED + 1):
        yields = sequences * (1 + _expected_accepted(share, count))
        rate = yields / (relative_cost(sequences * (count + 1)) + count * cost * relative_cost(sequences))
        if rate > best_rate:
            best, best_rate = count, rate
    return best


def _expected_accepted(share: float, guesses: int) -> float:
    """How many of so many guesses hold, as expected."""
    return share * (1 - share**guesses) / (1 - share) if share < 1 else guesses


def relative_cost(tokens: int) -> float:
    """Of a step, in steps of one token."""
    return 1 + ANOTHER_TOKEN * (tokens - 1)
