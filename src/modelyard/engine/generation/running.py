"""All that one engine holds of a sequence."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.engine.guidance import Constraint
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.output.output import Output
from modelyard.engine.output.sampler import ConstrainedSampler, Sampler
from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.requests import Submit
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import Reading, SequenceId, TokenLogprob


@dataclass(slots=True, eq=False)
class RunningSequence:
    """A sequence that an engine computes, or that left it and did not leave its process.

    Attributes:
        request: as it came.
        reading: how its text is to be read; None: it is just text.
        tokens: the prompt and the answer so far.
        output: the text side of the answer.
        sampler: with the state of its random numbers and penalties.
        published: how many of the tokens, those of the prompt included, events have told of.
    """

    request: Submit
    reading: Reading | None
    tokens: Sequence
    output: Output
    sampler: Sampler
    published: int = 0

    @property
    def id(self) -> SequenceId:
        """Its number."""
        return self.request.sequence

    @property
    def constraint(self) -> Constraint | None:
        """The grammar that its answer follows, and where in it the answer is."""
        return self.sampler.constraint if isinstance(self.sampler, ConstrainedSampler) else None

    def suspended(self, identity: str, kept: KeptPrompt | None) -> SuspendedSequence:
        """The sequence as a value that another engine can resume. The caller must not compute it any more.

        Args:
            identity: of the weights and settings that it belongs to.
            kept: its KV state; None: it is computed again.
        """
        recorder = self.output.recorder
        return self._state(identity, len(self.tokens.tokens), () if recorder is None else recorder.pending, kept, self)

    def suspended_by_failure(self, identity: str) -> SuspendedSequence:
        """What can be trusted of a sequence whose engine failed, perhaps in its middle: the tokens that were published.

        Args:
            identity: as in ``suspended``.
        """
        published = max(self.published, self.tokens.prompt_length)
        unpublished = len(self.tokens.tokens) - published
        recorder = self.output.recorder
        pending = () if recorder is None else recorder.pending
        if unpublished:
            pending = pending[: len(pending) - unpublished]
        return self._state(identity, published, pending, None, None)

    def _state(
        self,
        identity: str,
        length: int,
        pending_logprobs: tuple[TokenLogprob, ...],
        kept: KeptPrompt | None,
        live: RunningSequence | None,
    ) -> SuspendedSequence:
        tokens = self.tokens
        return SuspendedSequence(
            identity,
            self.request,
            tuple(tokens.tokens[: tokens.prompt_length]),
            tuple(tokens.tokens[tokens.prompt_length : length]),
            self.reading,
            tokens.cached_tokens,
            pending_logprobs,
            kept,
            live,
        )
