"""A sequence between two engines: everything that it needs to go on, as values that can be written down.

A suspended sequence is told by its request and its tokens. Whatever else an engine holds of it follows from these: the
text that is held back, the penalties, how far the seed's draws and the grammar are. So it can go on in another process,
and also when its engine's process has died and nothing but its tokens is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import Reading, SequenceId, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class SuspendedSequence:
    """A sequence in the middle of its answer, which no engine has.

    Attributes:
        identity: of the weights and settings that it belongs to.
        request: as it came.
        prompt: its tokens; those of images below 0.
        answer: its tokens so far; all of their text that is certain was published.
        reading: how the text is to be read; None: it is just text.
        cached_tokens: of the prompt, that cost no prefill when it first ran; None where it has not begun.
        pending_logprobs: of the last tokens of the answer, whose text is not certain yet.
        kept: the KV state of those tokens that were computed; None: they are computed again.
        live: the engine's own ``RunningSequence``, as long as it stays in the process; the holder of the state owns it.
            None: it is made again.
    """

    identity: str
    request: Submit
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    reading: Reading | None
    cached_tokens: int | None
    pending_logprobs: tuple[TokenLogprob, ...] = ()
    kept: KeptPrompt | None = None
    live: object = field(default=None, repr=False, compare=False)

    @property
    def sequence(self) -> SequenceId:
        """Its number."""
        return self.request.sequence

    @property
    def size_bytes(self) -> int:
        """Host memory that its KV state holds."""
        return 0 if self.kept is None else self.kept.kv.nbytes

    @property
    def usage(self) -> Usage | None:
        """What it has used so far; None: it has not begun."""
        if self.cached_tokens is None:
            return None
        return Usage(len(self.prompt), len(self.answer), self.cached_tokens)

    def without_kv(self) -> SuspendedSequence:
        """The same, to be computed again."""
        return replace(self, kept=None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Written down without the objects of its engine, which are of its process."""
        written = (
            self.identity,
            self.request,
            self.prompt,
            self.answer,
            self.reading,
            self.cached_tokens,
            self.pending_logprobs,
            self.kept,
        )
        return SuspendedSequence, written
