"""How likely the tokens of an answer were, and what else might have been said. Only for answers that ask for it.

Of the distribution that the model gives, before temperature, penalties and grammars change it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from modelyard.protocol.values import TokenLogprob

Scores = npt.NDArray[np.float64]


def log_softmax(logits: npt.NDArray[np.float32]) -> Scores:
    """Natural logarithms of the probabilities of [vocab_size] logits."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return shifted - np.log(np.exp(shifted).sum())  # type: ignore[no-any-return]


class LogprobRecorder:
    """Log-probabilities of one answer, let out with the text that they belong to.

    Args:
        most: how many of the likeliest tokens are told beside each one.
        piece: the bytes of a token.
    """

    __slots__ = ("_held", "_most", "_out_bytes", "_seen_bytes", "piece")

    def __init__(self, most: int, piece: Callable[[int], bytes]) -> None:
        self.piece = piece
        self._most = most
        # With the numbers of bytes of the answer up to the begin and up to the end of each token.
        self._held: deque[tuple[int, int, TokenLogprob]] = deque()
        self._seen_bytes = self._out_bytes = 0

    @property
    def pending(self) -> tuple[TokenLogprob, ...]:
        """Those that were not let out yet."""
        return tuple(entry for _, _, entry in self._held)

    def replay(self, sizes: Sequence[int], text: str, pending: Sequence[TokenLogprob]) -> None:
        """Be where the trail of another engine was.

        Args:
            sizes: bytes that each token so far has added to the answer.
            text: that became certain by them.
            pending: of the last of them, that were not let out.
        """
        seen, ends = 0, []
        for size in sizes:
            ends.append((seen, seen + size))
            seen += size
        first = len(ends) - len(pending)
        self._held.extend((*ends[first + at], entry) for at, entry in enumerate(pending))
        self._seen_bytes, self._out_bytes = seen, len(text.encode())

    def add(self, token: int, size: int, scores: Scores) -> None:
        """A token of the answer, and the scores that it was chosen by.

        Args:
            size: bytes that the token adds to the answer; 0 where it is a special token that is no text.
        """
        self._held.append((self._seen_bytes, self._seen_bytes + size, self.entry(token, scores)))
        self._seen_bytes += size

    def entry(self, token: int, scores: Scores) -> TokenLogprob:
        """A token with those that were likeliest in its place."""
        most = min(self._most, len(scores))
        best = np.argpartition(-scores, most - 1)[:most] if most else np.empty(0, np.intp)
        ranked = best[np.argsort(-scores[best], kind="stable")]
        top = tuple((self.piece(int(index)), float(scores[index])) for index in ranked)
        return TokenLogprob(self.piece(token), float(scores[token]), top)

    def release(self, text: str) -> tuple[TokenLogprob, ...]:
        """Those whose text has become certain with ``text``."""
        self._out_bytes += len(text.encode())
        let_out = []
        while self._held and self._held[0][1] <= self._out_bytes:
            let_out.append(self._held.popleft()[2])
        return tuple(let_out)

    def release_last(self, text: str, *, is_cut: bool) -> tuple[TokenLogprob, ...]:
        """All that are left, with the last of the text.

        Args:
            is_cut: the text ends before a stop string: tokens that are none of it are not let out.
        """
        self._out_bytes += len(text.encode())
        let_out = tuple(each for begin, _, each in self._held if not is_cut or begin < self._out_bytes)
        self._held.clear()
        return let_out
