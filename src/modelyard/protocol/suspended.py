"""A sequence between two engines: everything that it needs to continue, as values that can be pickled.

The request and the tokens determine all other state that an engine has of a sequence: text that is held back,
penalties, the position of the random generator and of the grammar. So a sequence can continue in another process, and
also after its engine's process has died and only its tokens are left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import OutputFormat, SequenceId, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class SuspendedSequence:
    """A sequence in the middle of its answer that is on no engine.

    Attributes:
        identity: the weights and settings that it belongs to.
        request: the original request.
        prompt: token ids; those of images are below 0.
        answer: token ids so far; their text was published as far as it is certain.
        output_format: how the output is parsed; None: it is plain text.
        cached_tokens: tokens of the prompt that were reused when it first ran; None if it has not started.
        pending_logprobs: logprobs of the last tokens of the answer, whose text is not certain yet.
        kept: KV state of the computed tokens; None: they are computed again.
        live: the engine's ``RunningSequence``, which this value owns as long as it stays in the process; None: it is
            built again.
    """

    identity: str
    request: Submit
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    output_format: OutputFormat | None
    cached_tokens: int | None
    pending_logprobs: tuple[TokenLogprob, ...] = ()
    kept: KeptPrompt | None = None
    live: object = field(default=None, repr=False, compare=False)

    @property
    def sequence(self) -> SequenceId:
        """Number of the sequence."""
        return self.request.sequence

    @property
    def size_bytes(self) -> int:
        """Host memory of its KV state."""
        return 0 if self.kept is None else self.kept.kv.nbytes

    @property
    def usage(self) -> Usage | None:
        """Tokens used so far; None if it has not started."""
        if self.cached_tokens is None:
            return None
        return Usage(len(self.prompt), len(self.answer), self.cached_tokens)

    def without_kv(self) -> SuspendedSequence:
        """Return the sequence without its KV state, which is then computed again."""
        return replace(self, kept=None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without ``live``, which is valid in this process only."""
        arguments = (
            self.identity,
            self.request,
            self.prompt,
            self.answer,
            self.output_format,
            self.cached_tokens,
            self.pending_logprobs,
            self.kept,
        )
        return SuspendedSequence, arguments
