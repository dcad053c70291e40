"""Log-probabilities of the tokens of an answer, or of an echoed prompt, and of their alternatives.

They describe the model's own distribution, before temperature, penalties and grammars change it, unless the request
asks for that which its tokens are drawn from.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from modelyard.engine.output.draws import Probabilities
from modelyard.engine.output.narrowing import most_likely
from modelyard.protocol.values import TokenLogprob


@dataclass(frozen=True, slots=True)
class Scores:
    """The log-probabilities of all tokens at one place.

    Attributes:
        values: [vocab_size].
        offset: what has to be subtracted from each of them.
    """

    values: npt.NDArray[np.floating]
    offset: float

    def of(self, token: int) -> float:
        """Return the natural logarithm of the probability of a token."""
        return float(self.values[token]) - self.offset

    def rank(self, token: int) -> int:
        """Return the place of a token among all, the likeliest being 1."""
        return 1 + int(np.count_nonzero(self.values > self.values[token]))

    def likeliest(self, count: int) -> tuple[int, ...]:
        """Return the ``count`` most likely tokens, or all if there are fewer, the likeliest first."""
        return tuple(most_likely(self.values, count).tolist()) if count else ()


def log_softmax(logits: npt.NDArray[np.float32]) -> Scores:
    """Return the scores of [vocab_size] logits, which may be changed afterwards."""
    highest = logits.max()
    return Scores(logits.copy(), float(highest) + math.log(np.exp(logits - highest).sum()))


def log_of(probabilities: Probabilities) -> Scores:
    """Return the scores of [vocab_size] probabilities; that of 0 is minus infinity."""
    with np.errstate(divide="ignore"):
        return Scores(np.log(probabilities), 0.0)


class LogprobRecorder:
    """Log-probabilities of one answer, released with the text that they belong to.

    Args:
        top: number of the most likely tokens that are reported beside each token.
        piece: returns the bytes of a token.

    Attributes:
        prompt: those of the prompt, as far as it is scored.
    """

    __slots__ = ("_held", "_out_bytes", "_seen_bytes", "_top", "piece", "prompt")

    def __init__(self, top: int, piece: Callable[[int], bytes]) -> None:
        self.piece = piece
        self._top = top
        self.prompt: list[TokenLogprob] = []
        # Each with the numbers of bytes of the answer before and after its token.
        self._held: deque[tuple[int, int, TokenLogprob]] = deque()
        self._seen_bytes = self._out_bytes = 0

    @property
    def pending(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities that were not released yet."""
        return tuple(entry for _, _, entry in self._held)

    def replay(self, sizes: Sequence[int], text: str, pending: Sequence[TokenLogprob]) -> None:
        """Restore the state that the recorder of another engine had.

        Args:
            sizes: bytes that each token so far has added to the answer.
            text: the text that was released with them.
            pending: log-probabilities of the last tokens, which were not released.
        """
        seen, ends = 0, []
        for size in sizes:
            ends.append((seen, seen + size))
            seen += size
        first = len(ends) - len(pending)
        self._held.extend((*ends[first + at], entry) for at, entry in enumerate(pending))
        self._seen_bytes, self._out_bytes = seen, len(text.encode())

    def score(self, tokens: Sequence[int], at: int, logits: npt.NDArray[np.float32]) -> None:
        """Record tokens of the prompt ``tokens``, except those that were recorded before and are computed again.

        Args:
            tokens: the whole prompt.
            at: index of the token that the first row of ``logits`` was computed at; the row is about the next token.
            logits: [rows, vocab_size].
        """
        if not self.prompt:
            self.prompt.append(TokenLogprob(self.piece(tokens[0]), math.nan, (), tokens[0]))
        for index, row in enumerate(logits, at + 1):
            if index == len(self.prompt) and index < len(tokens):
                scores = log_softmax(row)
                self.prompt.append(replace(self.entry(tokens[index], scores), rank=scores.rank(tokens[index])))

    def add(self, token: int, size: int, scores: Scores) -> None:
        """Add a token of the answer, with the scores that it was sampled from.

        Args:
            size: bytes that the token adds to the answer; 0 where it is a special token that is no text.
        """
        self._held.append((self._seen_bytes, self._seen_bytes + size, self.entry(token, scores)))
        self._seen_bytes += size

    def entry(self, token: int, scores: Scores) -> TokenLogprob:
        """Return the log-probability of a token, with the most likely tokens in its place."""
        ids = scores.likeliest(self._top)
        top = tuple((self.piece(index), scores.of(index)) for index in ids)
        return TokenLogprob(self.piece(token), scores.of(token), top, token, ids)

    def prompt_with(self, top: int | None) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities of the prompt, with no more than ``top`` of the likeliest tokens each."""
        if top is None or top >= self._top:
            return tuple(self.prompt)
        return tuple(replace(each, top=each.top[:top], top_ids=each.top_ids[:top]) for each in self.prompt)

    def release(self, text: str) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities of the tokens that begin within the text released so far, ``text`` included."""
        self._out_bytes += len(text.encode())
        let_out = []
        while self._held and self._held[0][1] <= self._out_bytes:
            let_out.append(self._held.popleft()[2])
        return tuple(let_out)

    def release_last(self, text: str, *, is_cut: bool) -> tuple[TokenLogprob, ...]:
        """Return the remaining log-probabilities, with the last of the text.

        Args:
            is_cut: whether the text ends before a stop string; tokens that begin in that are dropped.
        """
        self._out_bytes += len(text.encode())
        let_out = tuple(each for begin, _, each in self._held if not is_cut or begin < self._out_bytes)
        self._held.clear()
        return let_out
