"""From requests to sequences: prompts are read, and grammars compiled, before anything is computed.

Slow work is done on other threads: a request waits for its prompt, sampler or grammar there, while the engine computes
for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from modelyard.engine.chat.chat_format import ChatFormat, text_grammar
from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.generation.sequence_builder import Admitted, ReadyRequest, SequenceBuilder
from modelyard.engine.guidance import Constraint, GrammarCompiler
from modelyard.engine.input.prompt_encoder import PreparedPrompt
from modelyard.engine.input.reading_pool import ReadingPool, is_quick, outcome_of
from modelyard.engine.llama import DrySampler, Model
from modelyard.engine.loading.load import LoadedModel
from modelyard.engine.messages import Compiled, PromptRead
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.errors import ContextLengthExceeded, ContextNotPermitted, EngineError, InvalidRequest, ModelyardError
from modelyard.protocol.prompts import Chat, Sampling, media_of
from modelyard.protocol.requests import Submit
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId

# More characters than a token of text has.
_TOKEN_CHARACTERS = 16


def check_context(request: Submit, prompt_tokens: int) -> None:
    """Refuse a request whose prompt and answer together may have more tokens than its key permits.

    Raises:
        ContextNotPermitted: the request asks for too many tokens.
    """
    permitted, wanted = request.max_context, request.max_tokens
    if permitted is not None and prompt_tokens + (1 if wanted is None else wanted) > permitted:
        raise ContextNotPermitted(permitted, prompt_tokens, wanted)


def cut_length(request: Submit, context_length: int) -> int | None:
    """Return to how many tokens the prompt of a request is cut; None: it is not.

    A number that the request names leaves room for one token of the answer, as a prompt that is not cut has to; with 0,
    the whole answer has room.

    Raises:
        InvalidRequest: the whole answer is to have room, and may be as long as the context.
    """
    if request.max_prompt_tokens is None:
        return None
    answer = max(1, request.max_tokens or 1)
    limits = [context_length - 1, request.max_prompt_tokens]
    if not request.max_prompt_tokens:
        limits = [context_length - answer]
        if answer >= context_length:
            raise InvalidRequest(
                f"'max_tokens' is {answer}, and the context of the model has {context_length} tokens, which leaves no "
                "room for a prompt. Lower it, or set 'truncate_prompt_tokens' to a number of tokens.",
                "max_tokens",
            )
    if request.max_context is not None:
        limits.append(request.max_context - answer)
    return max(1, min(limits))


def excluded_texts(bad_words: Iterable[str]) -> list[str]:
    """Return how the words may be written at the beginning of an answer and behind other words.

    Blanks alone are excluded as they are: without them, nothing would be left of the word.

    Source: vLLM, ``SamplingParams.update_from_tokenizer``.
    """
    written = ((word.lstrip(), f" {word.lstrip()}") if word.strip() else (word,) for word in bad_words)
    return list(dict.fromkeys(text for texts in written for text in texts))


@dataclass(frozen=True, slots=True)
class _Reading:
    """A request whose prompt is being read, and the state that it continues from, if any."""

    request: Submit
    resumed: SuspendedSequence | None
    outcome: Future[_Prepared]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A prompt whose images are yet to be laid out, and the tokens of other texts of the request.

    Attributes:
        prediction: of the predicted answer.
        bias: what is added to the logits of tokens.
        excluded: sequences that the answer must not have.
    """

    prompt: PreparedPrompt
    prediction: list[int]
    bias: Mapping[int, float]
    excluded: list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Compiling:
    """A request whose grammar is being compiled; ``dry`` holds its DRY sampler, once that is made."""

    ready: ReadyRequest
    outcome: Future[Constraint | None]
    dry: list[DrySampler]

    @property
    def resumed(self) -> SuspendedSequence | None:
        """The state that the request continues from; None where it is new."""
        return self.ready.resumed


class Admission:
    """Admits the requests of one engine. All methods run on the engine's thread.

    Args:
        name: id of the model, for messages.
        loaded: the loaded model.
        readers: threads that read prompts.
        record: the engine's record, which lists the requests that are being read.
        prompt_lookup: whether draft tokens are looked up in the text so far.
        send: sends a message to the engine's loop; called on any thread.
    """

    def __init__(
        self,
        name: str,
        loaded: LoadedModel,
        readers: ReadingPool,
        record: EngineRecord,
        *,
        prompt_lookup: bool,
        send: Callable[[Compiled | PromptRead], None],
    ) -> None:
        self._name = name
        self._readers, self._record = readers, record
        self._model: Model = loaded.model
        self._length = loaded.context.length
        self._prompts, self._defaults = loaded.prompts, loaded.sampling
        self._chat_format: ChatFormat | None = loaded.chat_format
        self._builder = SequenceBuilder(loaded, prompt_lookup=prompt_lookup)
        self._adapters = loaded.adapters
        self._send = send
        self._arrivals = 0
        self._pending: dict[SequenceId, _Reading | _Compiling] = {}
        self.grammars = GrammarCompiler(loaded.model.vocabulary)

    @property
    def pending(self) -> list[tuple[SequenceId, SuspendedSequence | None]]:
        """Requests whose prompts are being read, or whose grammars or samplers are being made.

        Each with the state that it continues from; None where it is new.
        """
        return [(sequence, pending.resumed) for sequence, pending in self._pending.items()]

    def submit(self, request: Submit) -> Admitted | None:
        """Admit a request; None where its prompt must be read or its grammar compiled first.

        In that case a PromptRead or Compiled message follows, to be handed to ``read`` or ``compiled``.

        Raises:
            ModelyardError: the request is refused.
        """
        self._check_ids("logit_bias", request.sampling.logit_bias or ())
        self._check_ids("stop_token_ids", request.stop_tokens)
        self._check_ids("allowed_token_ids", request.allowed_tokens or ())
        has_texts = bool(request.prediction or request.sampling.text_bias or request.bad_words)
        if is_quick(request.prompt) and not has_texts and request.max_prompt_tokens is None:
            with self._record.reading(request.sequence):
                prepared = _Prepared(self._prompts.prepare(request.prompt), [], request.sampling.logit_bias or {}, [])
            return self._admit_prepared(request, None, prepared)
        self._start_reading(request, None)
        return None

    def resume(self, state: SuspendedSequence) -> Admitted | None:
        """Admit a sequence that was suspended; None as in ``submit``.

        Raises:
            ModelyardError: the request is refused.
        """
        held = len(state.prompt) + len(state.answer)
        if held >= self._length:
            raise ContextLengthExceeded(self._length, held)
        running = state.live
        if not isinstance(running, RunningSequence):
            self._start_reading(state.request, state)
            return None
        if not self._adapters.holds(running.tokens.adapters):
            names = ", ".join(use.name for use in state.request.adapters)
            raise EngineError(
                self._name, f"its adapter was unloaded or replaced while a request was suspended: {names}"
            )
        # The context may be shorter than that in which it began.
        running.output.max_tokens = min(running.output.max_tokens, self._length - len(state.prompt))
        if running.constraint is not None:
            self.grammars.adopt(running.constraint, self._model.tokenize_plain)
        if running.output.recorder is not None:
            running.output.recorder.piece = self._model.visible_piece
        if running.prompt_recorder is not None:
            running.prompt_recorder.piece = self._model.visible_piece
        if running.budget is not None:
            running.budget.piece = partial(self._model.piece_of, visible_specials=running.output.visible_specials)
        running.tokens.arrival = self.next_arrival()
        return Admitted(running, resumed=state)

    def _start_reading(self, request: Submit, resumed: SuspendedSequence | None) -> None:
        outcome = self._readers.submit(
            request.sequence,
            lambda: self._prepare(request, resumed),
            lambda done: self._send(PromptRead(request.sequence, done)),
        )
        self._pending[request.sequence] = _Reading(request, resumed, outcome)

    def read(self, message: PromptRead) -> Admitted | None:
        """Continue with a request whose prompt is read; None as in ``submit``, or where the request was discarded.

        Raises:
            ModelyardError: the request is refused.
        """
        reading = self._pending.get(message.sequence)
        if not isinstance(reading, _Reading) or reading.outcome is not message.outcome:
            return None
        del self._pending[message.sequence]
        return self._admit_prepared(reading.request, reading.resumed, outcome_of(message.outcome, self._name))

    def _prepare(self, request: Submit, resumed: SuspendedSequence | None) -> _Prepared:
        """Read the prompt of a request. Runs on a reader's thread."""
        if resumed is None or not resumed.prompt or media_of(request.prompt):
            prepared = self._prompts.prepare(request.prompt, cut_length(request, self._length))
        else:
            # The prompt is not read again: a template may write the current date.
            prepared = PreparedPrompt("prompt", (list(resumed.prompt),), resumed.output_format)
        # Only as much of the prediction as an answer can hold.
        limit = self._length if request.max_tokens is None else min(request.max_tokens, self._length)
        text = request.prediction[: limit * _TOKEN_CHARACTERS]
        prediction = self._model.tokenize_plain(text.encode("utf-8", "replace")) if text else []
        return _Prepared(prepared, prediction, self._bias(request.sampling), self._excluded(request.bad_words))

    def _excluded(self, bad_words: Iterable[str]) -> list[tuple[int, ...]]:
        """Return the tokens of texts that the answer must not have. Runs on a reader's thread."""
        tokens = (
            tuple(self._model.tokenize_plain(text.encode("utf-8", "replace"))) for text in excluded_texts(bad_words)
        )
        return [each for each in dict.fromkeys(tokens) if each]

    def _bias(self, sampling: Sampling) -> dict[int, float]:
        """Return the bias of tokens; that of a text holds for each of its tokens. Runs on a reader's thread."""
        bias = dict(sampling.logit_bias or {})
        for text, value in (sampling.text_bias or {}).items():
            bias |= dict.fromkeys(self._model.tokenize_plain(text.encode("utf-8", "replace")), value)
        return bias

    def _admit_prepared(
        self, request: Submit, resumed: SuspendedSequence | None, prepared: _Prepared
    ) -> Admitted | None:
        with self._record.reading(request.sequence):
            prompt = self._prompts.finish(prepared.prompt.salted(request.cache_salt))
        if resumed is None:
            check_context(request, len(prompt.tokens))
        elif resumed.prompt:
            prompt = replace(prompt, tokens=list(resumed.prompt), output_format=resumed.output_format)
        if isinstance(request.prompt, Chat) and self._chat_format is not None:
            grammar = self._chat_format.grammar(request, request.prompt, prompt.output_format)
        else:
            grammar = text_grammar(request)
        ready = ReadyRequest(request, resumed, prompt, prepared.prediction, prepared.bias, prepared.excluded)
        sampling = request.sampling.over(self._defaults)
        if grammar is None and not sampling.dry_multiplier:
            return self._build(ready, None, [])
        dry: list[DrySampler] = []

        def make() -> str | None:
            if sampling.dry_multiplier:
                with self._record.reading(request.sequence):
                    dry.append(DrySampler(sampling, self._model, self._length))
            return None if grammar is None else grammar()

        constraint = self.grammars.compile(
            make,
            lambda done: self._send(Compiled(request.sequence, done)),
            answer=ready.answer,
            salt=request.cache_salt,
        )
        self._pending[request.sequence] = _Compiling(ready, constraint, dry)
        return None

    def compiled(self, message: Compiled) -> Admitted | None:
        """Admit a request whose grammar is compiled; None where the request was discarded.

        Raises:
            InvalidRequest: its grammar cannot be enforced.
            GrammarUntried: no process was there to test it.
        """
        pending = self._pending.get(message.sequence)
        if not isinstance(pending, _Compiling) or pending.outcome is not message.constraint:
            return None
        del self._pending[message.sequence]
        failure = message.constraint.exception()
        if failure is not None and not isinstance(failure, ModelyardError):
            # Any failure of a grammar, such as a schema nested too deep or a panic in Rust, fails this request alone.
            raise InvalidRequest(f"Its grammar cannot be made: {type(failure).__name__}: {failure}") from failure
        return self._build(pending.ready, message.constraint.result(), pending.dry)

    def discard(self, sequence: SequenceId) -> bool:
        """Discard a request that is not admitted yet; whether there was one."""
        pending = self._pending.pop(sequence, None)
        if pending is not None:
            pending.outcome.cancel()
        return pending is not None

    def _build(self, ready: ReadyRequest, constraint: Constraint | None, dry: list[DrySampler]) -> Admitted:
        return self._builder.build(ready, self.next_arrival(), constraint, dry[0] if dry else None)

    def next_arrival(self) -> int:
        """Return the place of the next sequence in the order of arrival."""
        self._arrivals += 1
        return self._arrivals - 1

    def _check_ids(self, param: str, tokens: Iterable[int]) -> None:
        for token in tokens:
            if not 0 <= token < self._model.vocab_size:
                raise InvalidRequest(
                    f"{param} names token {token}, but this model's vocabulary has ids 0 to "
                    f"{self._model.vocab_size - 1}.",
                    param,
                )
