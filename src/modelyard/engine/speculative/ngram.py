"""Prompt lookup: the tokens that followed an earlier occurrence of the last tokens are proposed as a draft.

Edits, summaries and code repeat long parts of their prompt. The draft is verified in one step, which costs less than a
step for each of its tokens.

Source: A. Saxena, "Prompt Lookup Decoding", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.engine.kv.sequence import Proposer
from modelyard.engine.speculative.policy import Acceptance

# Length of a match that is needed, and up to which a match is measured, in tokens.
MIN_MATCH_LENGTH = 3
MAX_MATCH_LENGTH = 16

# Limit of tokens that are indexed in one step, and how far back: a long prompt must not delay the streams beside it.
_MAX_INDEXED_PER_STEP = 4096
_MAX_INDEXED = 65_536

# Initial share of draft tokens that are accepted, by the length of the match.
_SHARES = {3: 0.4, 4: 0.5, 6: 0.8, 10: 0.9, MAX_MATCH_LENGTH: 0.95}


class NgramProposer:
    """Proposes draft tokens where the last tokens of a sequence occurred before, and estimates their acceptance."""

    __slots__ = ("_acceptance", "_ends", "_indexed", "_match")

    def __init__(self) -> None:
        # The index behind the last occurrence of each run of MIN_MATCH_LENGTH tokens.
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._acceptance = {length: Acceptance(share) for length, share in _SHARES.items()}
        self._match = MIN_MATCH_LENGTH

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Return at most ``limit`` tokens that may follow ``tokens``; [] where the last ones did not occur before."""
        self._index(tokens)
        end = self._ends.get(tuple(tokens[-MIN_MATCH_LENGTH:]))
        if end is None:
            return []
        match = MIN_MATCH_LENGTH
        while match < min(MAX_MATCH_LENGTH, end) and tokens[end - match - 1] == tokens[-match - 1]:
            match += 1
        self._match = max(length for length in _SHARES if length <= match)
        self._acceptance[self._match].settle_back()
        return list(tokens[end : end + limit])

    @property
    def share(self) -> float:
        """Probability that a token of the last draft is accepted, if those before it are."""
        return self._acceptance[self._match].share

    @property
    def kept(self) -> float:
        """Probability that the token behind the accepted ones is kept."""
        return self._acceptance[self._match].kept

    def record_verified(self, proposed: int, accepted: int, *, kept: bool) -> None:
        """Learn how the last draft did."""
        self._acceptance[self._match].record(proposed, accepted, kept=kept)

    def _index(self, tokens: Sequence[int]) -> None:
        # The last tokens themselves are not an earlier occurrence.
        stop = len(tokens) - 1
        start = max(self._indexed, MIN_MATCH_LENGTH - 1, stop - _MAX_INDEXED)
        stop = min(stop, start + _MAX_INDEXED_PER_STEP)
        for last in range(start, stop):
            self._ends[tuple(tokens[last - MIN_MATCH_LENGTH + 1 : last + 1])] = last + 1
        self._indexed = max(self._indexed, stop)


class PredictionProposer:
    """Proposes draft tokens from a predicted text of the answer, and elsewhere those of another proposer.

    Args:
        predicted: tokens of the predicted text.
        prompt_length: tokens before the answer.
        otherwise: proposes where the answer has left the predicted text.
    """

    __slots__ = ("_acceptance", "_ends", "_otherwise", "_predicted", "_prompt_length", "_was_predicted")

    def __init__(self, predicted: Sequence[int], prompt_length: int, otherwise: Proposer) -> None:
        self._predicted = tuple(predicted)
        self._prompt_length = prompt_length
        self._otherwise = otherwise
        self._acceptance = Acceptance(_SHARES[MAX_MATCH_LENGTH])
        self._was_predicted = False
        ends = range(MIN_MATCH_LENGTH, len(predicted) + 1)
        self._ends = {self._predicted[end - MIN_MATCH_LENGTH : end]: end for end in reversed(ends)}

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Return at most ``limit`` tokens that may follow ``tokens``."""
        at = self._place(tokens)
        self._was_predicted = at is not None and at < len(self._predicted)
        if at is None or not self._was_predicted:
            return self._otherwise.propose(tokens, limit)
        self._acceptance.settle_back()
        return list(self._predicted[at : at + limit])

    @property
    def share(self) -> float:
        """Probability that a token of the last draft is accepted, if those before it are."""
        return self._acceptance.share if self._was_predicted else self._otherwise.share

    @property
    def kept(self) -> float:
        """Probability that the token behind the accepted ones is kept."""
        return self._acceptance.kept if self._was_predicted else self._otherwise.kept

    def record_verified(self, proposed: int, accepted: int, *, kept: bool) -> None:
        """Learn how the last draft did."""
        if self._was_predicted:
            self._acceptance.record(proposed, accepted, kept=kept)
        else:
            self._otherwise.record_verified(proposed, accepted, kept=kept)

    def _place(self, tokens: Sequence[int]) -> int | None:
        """Return where in the predicted text the answer continues; None where it has left it."""
        length = len(tokens) - self._prompt_length
        if length < MIN_MATCH_LENGTH:
            start = tuple(tokens[self._prompt_length :])
            return length if start == self._predicted[:length] else None
        return self._ends.get(tuple(tokens[-MIN_MATCH_LENGTH:]))
