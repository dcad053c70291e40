"""Prompt lookup: what follows the last tokens where they stood before is a good guess at what follows them now.

Edits, summaries and code repeat long parts of their prompt. The guess is verified in one step, which costs less than a
step for each of its tokens.

Source: A. Saxena, "Prompt Lookup Decoding", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.engine.kv.sequence import Proposer

# Tokens that must stand there in the same order, and how many more are looked at.
MIN_MATCH_LENGTH = 3
MAX_MATCH_LENGTH = 16

# Tokens that are indexed in one step, and how far back: a long prompt is not to stop the streams beside it.
_INDEXED_A_STEP = 4096
_INDEXED_MOST = 65_536

# Share of guesses that hold, before any was verified; by the length of the match. Part that the newest guess replaces.
_SHARES = {3: 0.4, 4: 0.5, 6: 0.8, 10: 0.9, MAX_MATCH_LENGTH: 0.95}
_NEWEST = 0.15


class NgramProposer:
    """Guesses of one sequence, and how good they were."""

    __slots__ = ("_ends", "_indexed", "_match", "_shares")

    def __init__(self) -> None:
        # Where the last tokens that were seen so end: the index behind them.
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._shares = dict(_SHARES)
        self._match = MIN_MATCH_LENGTH

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most ``most`` tokens that may follow ``tokens``; [] where the last ones did not occur before."""
        self._index(tokens)
        end = self._ends.get(tuple(tokens[-MIN_MATCH_LENGTH:]))
        if end is None:
            return []
        match = MIN_MATCH_LENGTH
        while match < min(MAX_MATCH_LENGTH, end) and tokens[end - match - 1] == tokens[-match - 1]:
            match += 1
        self._match = max(length for length in self._shares if length <= match)
        return list(tokens[end : end + most])

    @property
    def share(self) -> float:
        """The probability of each token of the last guess, if those before it hold."""
        return self._shares[self._match]

    def record_verified(self, proposed: int, accepted: int) -> None:
        """Of the last guess ``guessed`` tokens were verified, and the first ``held`` of them were right."""
        if not proposed:
            return
        # Those behind the first that is wrong say nothing.
        seen = min(proposed, accepted + 1)
        self._shares[self._match] += min(1.0, _NEWEST * seen) * (accepted / seen - self._shares[self._match])

    def _index(self, tokens: Sequence[int]) -> None:
        # The last tokens are no place where they occurred before.
        stop = len(tokens) - 1
        start = max(self._indexed, MIN_MATCH_LENGTH - 1, stop - _INDEXED_MOST)
        stop = min(stop, start + _INDEXED_A_STEP)
        for last in range(start, stop):
            self._ends[tuple(tokens[last - MIN_MATCH_LENGTH + 1 : last + 1])] = last + 1
        self._indexed = max(self._indexed, stop)


class PredictionProposer:
    """Guesses from a text that the answer may well be, and otherwise as another guesser does.

    Args:
        predicted: tokens of that text.
        prompt_length: tokens before the answer.
        otherwise: guesses where the answer has left the text.
    """

    __slots__ = ("_ends", "_otherwise", "_predicted", "_prompt_length", "_share", "_was_predicted")

    def __init__(self, predicted: Sequence[int], prompt_length: int, otherwise: Proposer) -> None:
        self._predicted = tuple(predicted)
        self._prompt_length = prompt_length
        self._otherwise = otherwise
        self._share = _SHARES[MAX_MATCH_LENGTH]
        self._was_predicted = False
        ends = range(MIN_MATCH_LENGTH, len(predicted) + 1)
        self._ends = {self._predicted[end - MIN_MATCH_LENGTH : end]: end for end in reversed(ends)}

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most ``most`` tokens that may follow ``tokens``."""
        at = self._place(tokens)
        self._was_predicted = at is not None and at < len(self._predicted)
        if at is None or not self._was_predicted:
            return self._otherwise.propose(tokens, most)
        return list(self._predicted[at : at + most])

    @property
    def share(self) -> float:
        """The probability of each token of the last guess, if those before it hold."""
        return self._share if self._was_predicted else self._otherwise.share

    def record_verified(self, proposed: int, accepted: int) -> None:
        """Of the last guess ``guessed`` tokens were verified, and the first ``held`` of them were right."""
        if not self._was_predicted:
            self._otherwise.record_verified(proposed, accepted)
        elif proposed:
            seen = min(proposed, accepted + 1)
            self._share += min(1.0, _NEWEST * seen) * (accepted / seen - self._share)

    def _place(self, tokens: Sequence[int]) -> int | None:
        """Where in the predicted text the answer goes on; None where it has left it."""
        said = len(tokens) - self._prompt_length
        if said < MIN_MATCH_LENGTH:
            begun = tuple(tokens[self._prompt_length :])
            return said if begun == self._predicted[:said] else None
        return self._ends.get(tuple(tokens[-MIN_MATCH_LENGTH:]))
