"""The state that an engine holds for one running sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelyard.engine.guidance import Constraint
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.output.logprobs import LogprobRecorder
from modelyard.engine.output.output import SequenceOutput
from modelyard.engine.output.reasoning_budget import ReasoningBudget, ReasoningCounter
from modelyard.engine.output.sampler import ConstrainedSampler, Sampler
from modelyard.protocol.deltas import OutputParser, ToolCallEnd
from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.requests import Submit
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import OutputFormat, SequenceId, TokenLogprob, Usage


@dataclass(slots=True, eq=False)
class RunningSequence:
    """A sequence that an engine computes, or that was suspended within its process.

    Attributes:
        request: the request.
        output_format: how readers parse its text; None: it is plain text.
        tokens: the prompt and the answer so far.
        output: the text side of the answer.
        sampler: holds the state of its random numbers and penalties.
        echo: text of the prompt, to be published with its log-probabilities once they are computed.
        prompt_recorder: log-probabilities of the prompt, where they are asked for.
        overdue_at: when an answer with more than one line ends, in seconds of the monotonic clock; None: not known yet,
            or there is no limit.
        published: number of tokens, including those of the prompt, that were published in events.
        reasoning: counts the tokens of its reasoning; None: the model does not reason.
        calls: parses the calls of an answer that ends with its first one; None: the answer does not.
        budget: limit of its reasoning; None: it has none.
    """

    request: Submit
    output_format: OutputFormat | None
    tokens: TokenSequence
    output: SequenceOutput
    sampler: Sampler
    published: int = 0
    echo: str = ""
    prompt_recorder: LogprobRecorder | None = None
    overdue_at: float | None = None
    reasoning: ReasoningCounter | None = None
    calls: OutputParser | None = None
    budget: ReasoningBudget | None = None

    @property
    def id(self) -> SequenceId:
        """The number of the sequence."""
        return self.request.sequence

    @property
    def constraint(self) -> Constraint | None:
        """The grammar of the answer, with its current state; None where it has none."""
        return self.sampler.constraint if isinstance(self.sampler, ConstrainedSampler) else None

    def is_overdue(self, now: float) -> bool:
        """Whether the answer has taken as long as it may. Called with each of its tokens, the first one included."""
        limit = self.request.max_predict_s
        if limit is None:
            return False
        if self.overdue_at is None:
            self.overdue_at = now + limit
        return now >= self.overdue_at and self.output.has_lines

    def completes_call(self, text: str) -> bool:
        """Whether ``text``, the next of the answer, completes the call that the answer ends with."""
        if self.calls is None or not text:
            return False
        return any(isinstance(delta, ToolCallEnd) for delta in self.calls.push(text))

    @property
    def usage(self) -> Usage:
        """The tokens used so far."""
        usage = self.tokens.usage
        return usage if self.reasoning is None else replace(usage, reasoning_tokens=self.reasoning.count)

    def suspended(self, identity: str, kept: KeptPrompt | None) -> SuspendedSequence:
        """Return the sequence as a value that another engine can resume. The caller must not compute it any more.

        Args:
            identity: weights and settings that the state belongs to.
            kept: its KV state; None: it is computed again.
        """
        recorder = self.output.recorder
        return self._state(identity, len(self.tokens.tokens), () if recorder is None else recorder.pending, kept, self)

    def suspended_by_failure(self, identity: str) -> SuspendedSequence:
        """Return the state of a sequence whose engine failed: the tokens that were published, without KV state.

        Args:
            identity: weights and settings that the state belongs to.
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
            self.output_format,
            tokens.cached_tokens,
            pending_logprobs,
            kept,
            live,
        )
