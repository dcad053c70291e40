"""Decides how many draft tokens a step verifies, and how much time they may cost each of its sequences. Pure.

Drafts make a step longer, for all sequences in it, and save each sequence a step for every token that is accepted. So
each has a credit, in time: what drafts have saved it less what they have cost it, whatever the reason that they were
thrown away, and a small share of the time that it would take without drafts. A step is made longer only as far as no
credit falls below a limit even if all draft tokens are thrown away.

Times are in steps of one token, by relative costs that are measured but held steady (``StepCost.relative``). The same
request is then drafted for in the same way again, which matters because logits depend slightly on the tokens that they
are computed with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeAlias

# Limit of draft tokens of one sequence in a step, and the speed-up that drafts must promise.
MAX_PROPOSED: Final = 31
MIN_SPEEDUP: Final = 1.1

# Limit of tokens of one draft: each costs a step of the draft model, and counts only if all those before it do.
MAX_DRAFTED: Final = 7

# Drafts that are all thrown away cost a sequence at most OVERDRAFT_STEPS of its steps, and MAX_LOSS of the time that it
# takes without drafts: together 3 % of an answer of 100 tokens, and less of a longer one. The first draft token and the
# step that computes an uncertain token again must fit into OVERDRAFT_STEPS.
OVERDRAFT_STEPS: Final = 1.5
MAX_LOSS: Final = 0.015

# Credit of a sequence at its start, in steps of one token, where a draft model was asked for: it takes several drafts
# to find out whether they help.
DRAFT_MODEL_CREDIT: Final = 8.0

# Limit of the credit, in steps of the sequence: what was gained long ago must not pay for drafts that fail now.
MAX_CREDIT_STEPS: Final = 16

# Weight of the newest draft token in the moving averages, and of the first estimate at each draft, so that what was
# given up is tried again after a while.
_NEWEST: Final = 0.15
_RETURN: Final = 0.005

StepCosts: TypeAlias = Callable[[int], float]
"""Returns the time of a step of so many tokens, in steps of one token."""


class Acceptance:
    """Estimates how drafts of one kind fare.

    Attributes:
        share: probability that a draft token is accepted, if those before it are.
        kept: probability that the token behind the accepted ones is kept. Otherwise it was uncertain, and is computed
            again by itself.
    """

    __slots__ = ("_first", "kept", "share")

    def __init__(self, share: float) -> None:
        self._first = share
        self.share, self.kept = share, 1.0

    def record(self, proposed: int, accepted: int, *, kept: bool) -> None:
        """Learn that of ``proposed`` tokens the first ``accepted`` were, and whether the token behind them was kept."""
        if not proposed:
            return
        # Tokens behind the first one that was not accepted carry no information.
        seen = min(proposed, accepted + 1)
        self.share += min(1.0, _NEWEST * seen) * (accepted / seen - self.share)
        self.kept += _NEWEST * (kept - self.kept)

    def settle_back(self) -> None:
        """Move a little towards the first estimate."""
        self.share += _RETURN * (self._first - self.share)
        self.kept += _RETURN * (1.0 - self.kept)


@dataclass(frozen=True, slots=True)
class Offer:
    """Draft tokens that a step may verify for one of its sequences.

    Attributes:
        available: number of draft tokens; 0: none.
        share, kept: see ``Acceptance``. In a step of several sequences all tokens are kept.
        credit: of the sequence.
    """

    available: int
    share: float
    kept: float
    credit: float


def plan_drafts(offers: Sequence[Offer], cost: StepCosts, room: int) -> list[int]:
    """Return how many draft tokens of each offer to verify in a step: those that promise the most tokens a time.

    Args:
        offers: of all sequences in the step, each of which also computes a token that is no draft.
        cost: times of steps.
        room: limit of draft tokens in the step.
    """
    length = len(offers)
    counts = [0] * length
    # The likeliest draft tokens first, of equally likely ones those of the sequence with the least credit.
    tokens = sorted(
        (-(offer.share**place), offer.credit, at)
        for at, offer in enumerate(offers)
        for place in range(1, min(offer.available, room) + 1)
    )[:room]
    if not tokens:
        return counts
    base = cost(length)
    accepted = [0.0, *accumulate(-chance for chance, _, _ in tokens)]
    is_single = length == 1
    affordable = _affordable(min(offer.credit for offer in offers), length, base)
    thrown_away = is_single * (1 - offers[0].kept)
    best, best_rate = 0, MIN_SPEEDUP * length / base
    for total in _totals(length, len(tokens)):
        took = cost(total)
        rate = (length - thrown_away + accepted[total - length]) / took
        if took - base <= affordable and rate > best_rate:
            best, best_rate = total - length, rate
    for _, _, at in tokens[:best]:
        counts[at] += 1
    return counts


def _totals(length: int, drafts: int) -> list[int]:
    """Return the lengths of a step to try, with up to ``drafts`` tokens more than ``length``.

    llama.cpp's kernels take four tokens at a time, so of long steps only multiples of four are tried, and the longest.
    """
    end = length + drafts
    few = range(length + 1, min(length + 4, end + 1))
    return sorted({*few, *range(4 * (length // 4 + 1), end + 1, 4), end})


def drafts_worthwhile(acceptance: Acceptance, draft_cost: float, cost: StepCosts, sequences: int, credit: float) -> int:
    """Return how many tokens to draft for each of ``sequences`` that decode together; 0: drafting does not pay.

    Args:
        acceptance: how the drafts of the sequence fare.
        draft_cost: cost of a step of the draft model, in steps of the model that verifies.
        cost: times of steps of the model that verifies.
        sequences: sequences that it drafts for.
        credit: the least credit of the sequences.
    """
    base = cost(sequences)
    is_single = sequences == 1
    affordable = _affordable(credit, sequences, base)
    thrown_away = is_single * (1 - acceptance.kept)
    best, best_rate = 0, MIN_SPEEDUP * sequences / base
    for count in range(1, MAX_DRAFTED + 1):
        accepted = sum(acceptance.share**place for place in range(1, count + 1))
        took = cost(sequences * (count + 1)) + count * draft_cost * base
        rate = (sequences * (1 + accepted) - thrown_away) / took
        if took - base <= affordable and rate > best_rate:
            best, best_rate = count, rate
    return best


def credited(credit: float, plain: float, took: float = 0.0) -> float:
    """Return the credit after steps that took ``took``, and would have taken ``plain`` without drafts."""
    return credit + (1 + MAX_LOSS) * plain - took


def _affordable(credit: float, sequences: int, base: float) -> float:
    """Return by how much drafts may prolong a step that takes ``base``, if the least credit is ``credit``."""
    limit = credit + OVERDRAFT_STEPS * base
    # The token of a single sequence may have to be computed again.
    return limit if sequences > 1 else limit - (1 + MAX_LOSS) * base
