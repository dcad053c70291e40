"""The text of a sequence: tokens become text, and the text decides when the answer is complete."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from modelyard.engine.output.detokenize import Utf8Stream
from modelyard.engine.output.logprobs import LogprobRecorder
from modelyard.engine.output.stop_strings import StopFilter
from modelyard.protocol.values import FinishReason, TokenLogprob

ALL_TOKENS: Final[Container[int]] = range(1 << 31)
"""The ids of every vocabulary."""


class SequenceOutput:
    """The answer of one sequence so far.

    Args:
        max_tokens: the answer ends with this many tokens, reason "length".
        min_tokens: stop strings before this many tokens do not end it.
        end_tokens: ids that end it, reason "stop".
        stops: strings that end it, reason "stop"; they are part of it if ``includes_stop`` is set.
        visible_specials: special tokens that are part of its text, since they mark tool calls and reasoning.
        recorder: log-probabilities of its tokens, where they are asked for.

    Attributes:
        has_lines: whether its text has a line break.
    """

    __slots__ = (
        "_min_tokens",
        "_stop",
        "_tokens",
        "_utf8",
        "end_tokens",
        "finish_reason",
        "has_lines",
        "max_tokens",
        "recorder",
        "visible_specials",
    )

    def __init__(
        self,
        *,
        max_tokens: int,
        end_tokens: frozenset[int],
        stops: Sequence[str],
        min_tokens: int = 0,
        includes_stop: bool = False,
        visible_specials: Container[int] = frozenset(),
        recorder: LogprobRecorder | None = None,
    ) -> None:
        self.visible_specials = visible_specials
        self.recorder = recorder
        self.max_tokens = max_tokens
        self.end_tokens = end_tokens
        self._min_tokens = min_tokens
        self._tokens = 0
        self.has_lines = False
        self._utf8 = Utf8Stream()
        self._stop = StopFilter(stops, includes=includes_stop)
        self.finish_reason: FinishReason | None = None

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._stop.stopped_by

    def complete(self, reason: FinishReason = "stop") -> str:
        """End the answer; return the text that was held back."""
        self.finish_reason = reason
        return self._stop.flush()

    def replay(self, tokens: Sequence[int], pieces: Sequence[bytes], pending: Sequence[TokenLogprob]) -> str:
        """Restore the state that the output of another engine had; return the text that is certain.

        Args:
            tokens: the answer so far.
            pieces: the bytes of each token.
            pending: log-probabilities of the last tokens, which were not released.
        """
        text = "".join(map(self.push, tokens, pieces))
        if self.recorder is not None:
            self.recorder.replay(list(map(len, pieces)), text, pending)
        return text

    def push(self, token: int, piece: bytes) -> str:
        """Add one token, whose bytes are ``piece``; return the text that is certain now, often ""."""
        self._tokens += 1
        if token in self.end_tokens:
            self.finish_reason = "stop"
            return self._stop.flush()
        text = self._utf8.push(piece)
        self.has_lines = self.has_lines or "\n" in text
        if self._tokens >= self._min_tokens:
            text = self._stop.push(text)
        if self._stop.stopped_by is not None:
            self.finish_reason = "stop"
        elif self._tokens >= self.max_tokens:
            self.finish_reason = "length"
            text += self._stop.flush()
        return text
