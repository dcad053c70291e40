"""Makes the sequences of requests whose prompts and grammars are ready, with their samplers and their outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from modelyard.engine.chat.chat_format import ends_with_call, parser_of
from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.guidance import Constraint
from modelyard.engine.input.prompt_encoder import ReadPrompt
from modelyard.engine.kv.sequence import Proposer, Sequence
from modelyard.engine.llama import DrySampler
from modelyard.engine.loading.load import LoadedModel
from modelyard.engine.output.logprobs import LogprobRecorder
from modelyard.engine.output.output import ALL_TOKENS, SequenceOutput
from modelyard.engine.output.reasoning_budget import (
    BudgetedSampler,
    ReasoningBudget,
    ReasoningCounter,
    ReasoningSpan,
)
from modelyard.engine.output.restricted import RestrictedSampler
from modelyard.engine.output.sampler import ConstrainedSampler, Sampler, make_sampler
from modelyard.engine.speculative.draft_model import DraftProposer
from modelyard.engine.speculative.ngram import NgramProposer, PredictionProposer
from modelyard.engine.speculative.policy import DRAFT_MODEL_CREDIT
from modelyard.protocol.prompts import Chat, Text
from modelyard.protocol.requests import Submit
from modelyard.protocol.suspended import SuspendedSequence


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that can be computed.

    Attributes:
        running: its sequence.
        echo: text that its answer begins with.
        resumed: state that it continues from; None: it is new.
        repairs: as in ``Accepted``.
    """

    running: RunningSequence
    echo: str = ""
    resumed: SuspendedSequence | None = None
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadyRequest:
    """A request whose prompt is tokenised, images included.

    Attributes:
        request: the request.
        resumed: state that it continues from; None: it is new.
        prompt: its prompt.
        prediction: tokens of the predicted answer.
        bias: what is added to the logits of tokens.
        excluded: sequences that the answer must not have.
    """

    request: Submit
    resumed: SuspendedSequence | None
    prompt: ReadPrompt
    prediction: list[int]
    bias: Mapping[int, float]
    excluded: list[tuple[int, ...]]

    @property
    def answer(self) -> tuple[int, ...]:
        """The tokens of the answer that the request continues."""
        return () if self.resumed is None else self.resumed.answer


class SequenceBuilder:
    """Makes the sequences of one engine. All methods run on the engine's thread.

    Args:
        loaded: the loaded model.
        prompt_lookup: whether draft tokens are looked up in the text so far.
    """

    def __init__(self, loaded: LoadedModel, *, prompt_lookup: bool) -> None:
        self._model, self._length = loaded.model, loaded.context.length
        self._defaults, self._chat_format = loaded.sampling, loaded.chat_format
        self._drafts, self._prompt_lookup = loaded.drafter is not None, prompt_lookup
        self._adapters = loaded.adapters

    def build(
        self, ready: ReadyRequest, arrival: int, constraint: Constraint | None, dry: DrySampler | None
    ) -> Admitted:
        """Return the sequence of a request.

        Args:
            ready: the request.
            arrival: its place in the order of arrival.
            constraint: its grammar; None: it has none.
            dry: its DRY sampler; None: it has none.

        Raises:
            ModelNotFound: an adapter that it uses was unloaded.
        """
        adapters = self._adapters.find(ready.request.adapters)
        request, resumed, prompt = ready.request, ready.resumed, ready.prompt
        tokens = [token for token in prompt.tokens if token >= 0] if prompt.images else prompt.tokens
        output = self._output(request, prompt)
        span, budget = self._reasoning(request, prompt, output)
        sampler = self._sampler(ready, tokens, output, budget, dry)
        if constraint is not None:
            constraint.tokens_left = output.max_tokens - len(ready.answer)
            sampler = ConstrainedSampler(sampler, constraint)
        sequence = Sequence(
            request.sequence, arrival, prompt.tokens, request.priority, prompt.images, request.cache_salt, adapters
        )
        sequence.scores_prompt = request.scores_prompt and not ready.answer
        running = RunningSequence(
            request,
            prompt.output_format,
            sequence,
            output,
            sampler,
            reasoning=None if span is None else ReasoningCounter(span),
            budget=budget,
        )
        if isinstance(request.prompt, Chat) and prompt.output_format is not None and ends_with_call(request.prompt):
            running.calls = parser_of(prompt.output_format, request.prompt)
        if resumed is not None:
            self._continue(running, resumed)
        if sampler.can_verify:
            sequence.proposer = self._proposer(prompt, ready.prediction[: output.max_tokens])
            if self._drafts:
                sequence.credit = DRAFT_MODEL_CREDIT
        echo = self._echo(request, tokens) if request.echoes else ""
        if sequence.scores_prompt:
            running.echo = echo
            top = max(request.prompt_logprobs or 0, (request.logprobs or 0) if request.echoes else 0)
            running.prompt_recorder = LogprobRecorder(top, self._model.visible_piece)
            return Admitted(running, "", resumed, prompt.repairs)
        return Admitted(running, echo if resumed is None else "", resumed, prompt.repairs)

    def _sampler(
        self,
        ready: ReadyRequest,
        tokens: list[int],
        output: SequenceOutput,
        budget: ReasoningBudget | None,
        dry: DrySampler | None,
    ) -> Sampler:
        """Return the sampler of an answer, without its grammar; ``tokens`` are those of the prompt."""
        request = ready.request
        sampler: Sampler = make_sampler(
            replace(request.sampling.over(self._defaults), logit_bias=ready.bias),
            self._model,
            self._length,
            tokens,
            ban_end=request.ignore_eos,
            end_tokens=output.end_tokens,
            min_tokens=request.min_tokens,
            dry=dry,
            answer=ready.answer,
        )
        if budget is not None:
            for token in ready.answer:
                budget.accept(token)
            sampler = BudgetedSampler(sampler, budget)
        if request.allowed_tokens is not None or ready.excluded:
            sampler = RestrictedSampler(
                sampler, self._model.vocab_size, request.allowed_tokens, ready.excluded, ready.answer
            )
        return sampler

    def _continue(self, running: RunningSequence, resumed: SuspendedSequence) -> None:
        """Bring a sequence to where a suspended one was."""
        sequence, output = running.tokens, running.output
        sequence.tokens.extend(resumed.answer)
        sequence.cached_tokens = resumed.cached_tokens
        pieces = [self._model.piece_of(token, output.visible_specials) for token in resumed.answer]
        text = output.replay(resumed.answer, pieces, resumed.pending_logprobs)
        if running.reasoning is not None:
            for piece in pieces:
                running.reasoning.push(piece)
        if running.calls is not None:
            running.calls.push(text)

    def _reasoning(
        self, request: Submit, prompt: ReadPrompt, output: SequenceOutput
    ) -> tuple[ReasoningSpan | None, ReasoningBudget | None]:
        """Return how the reasoning of an answer is marked, and its budget; None where it has none."""
        chat, chat_format = request.prompt, self._chat_format
        if (
            not isinstance(chat, Chat)
            or chat_format is None
            or prompt.output_format is None
            or chat_format.reasoning is None
        ):
            return None, None
        marks, limit = chat_format.reasoning, chat_format.reasoning_budget(request, chat)
        closing = () if limit is None else tuple(self._model.tokenize(chat_format.closing(chat), add_special=False))
        span = ReasoningSpan(marks.open.encode(), marks.close.encode(), closing, prompt.output_format.is_open)
        piece = partial(self._model.piece_of, visible_specials=output.visible_specials)
        return span, None if limit is None else ReasoningBudget(span, limit, piece)

    def _proposer(self, prompt: ReadPrompt, prediction: list[int]) -> Proposer | None:
        """Return the proposer of a sequence; None where none can draft for it."""
        # Proposers read tokens, and would propose placeholders of images.
        if prompt.images or not self._model.can_trim:
            return None
        lookup = NgramProposer() if self._prompt_lookup else None
        proposer = DraftProposer(lookup) if self._drafts else lookup
        if not prediction:
            return proposer
        return PredictionProposer(prediction, len(prompt.tokens), proposer or NgramProposer())

    def _output(self, request: Submit, prompt: ReadPrompt) -> SequenceOutput:
        room = min(self._length, request.max_context or self._length) - len(prompt.tokens)
        is_read = prompt.output_format is not None and self._chat_format is not None
        limits = (limit for limit in (room, request.max_tokens, request.max_answer) if limit is not None)
        visible = self._chat_format.visible_specials if is_read and self._chat_format is not None else frozenset()
        return SequenceOutput(
            max_tokens=min(limits),
            min_tokens=request.min_tokens,
            end_tokens=self._model.end_tokens.union(request.stop_tokens),
            stops=request.stop,
            includes_stop=request.includes_stop,
            visible_specials=ALL_TOKENS if request.shows_special else visible,
            recorder=None if request.logprobs is None else LogprobRecorder(request.logprobs, self._model.visible_piece),
        )

    def _echo(self, request: Submit, tokens: list[int]) -> str:
        """Return the text of the prompt, of which a request may have cut the beginning."""
        prompt = request.prompt
        if isinstance(prompt, Text) and request.max_prompt_tokens is None:
            return prompt.text
        written = b"".join(map(self._model.piece, tokens)).decode("utf-8", "replace")
        # Tokenizers may put a space before a text.
        return prompt.text if isinstance(prompt, Text) and written.endswith(prompt.text) else written
