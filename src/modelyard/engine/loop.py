"""The engine's thread: take messages, schedule, decode, sample, publish.

Hot path: ``_step`` runs once for every token of every stream. All events of a step are published in one call, so that
a step wakes its readers once.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from modelyard.engine.answer import Answer
from modelyard.engine.cores import usable_cores
from modelyard.engine.kv_cache import KvCache, Trim
from modelyard.engine.llama import Batch, Context, Model, Sampler, can_offload, trim_heap, version
from modelyard.engine.messages import (
    Accepted,
    Cancel,
    Cancelled,
    Died,
    Event,
    Failed,
    Finished,
    Loaded,
    LoadFailed,
    LoadProgress,
    Message,
    ModelProfile,
    Sampling,
    SequenceId,
    Stop,
    Stopped,
    Submit,
    Token,
)
from modelyard.engine.prompt import PromptReader
from modelyard.engine.schedule import Feed, Scheduler
from modelyard.engine.sequence import Sequence as TokenSequence
from modelyard.engine.settings import DEFAULT_CONTEXT, EngineSettings
from modelyard.engine.template import ChatTemplate
from modelyard.errors import EngineError, InvalidRequest, ModelyardError, UnsupportedOperation, UnusableModel

logger = logging.getLogger(__name__)

Publish = Callable[[Sequence[Event]], None]

# Most tokens in a step, and most of them for prompts while streams run; measured in docs/performance.md.
BATCH_TOKENS = 512
PREFILL_BESIDE_DECODE = 64

# What llama.cpp's own tools use where neither the request, nor the configuration, nor the file says anything.
DEFAULT_SAMPLING = Sampling(
    temperature=0.8,
    top_k=40,
    top_p=0.95,
    min_p=0.05,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
)

_PROGRESS_STEP = 0.02


class LoadAbandoned(Exception):
    """The load was given up because the engine is to stop."""


class EngineLoop:
    """Everything that one engine's thread owns. All methods run on that thread.

    Args:
        settings: what to load and how to serve it.
        inbox: messages from the rest of the process.
        publish: takes the events of a step; called on this thread.
        is_stopping: whether a Stop is on its way; asked while loading, when the inbox is not read.
    """

    def __init__(
        self,
        settings: EngineSettings,
        inbox: SimpleQueue[Message],
        publish: Publish,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._publish = publish
        self._is_stopping = is_stopping
        self._model: Model | None = None
        self._context: Context | None = None
        self._answers: dict[SequenceId, Answer] = {}
        self._samplers: dict[SequenceId, Sampler] = {}
        self._arrivals = 0
        self._events: list[Event] = []
        self._reported = 0.0

    def run(self) -> None:
        """Load, serve until told to stop, free. The last event says how it ended."""
        last: Event
        try:
            self._load()
            self._serve()
            last = Stopped()
        except LoadAbandoned:
            last = Stopped()
        except UnusableModel as refused:
            last = LoadFailed(str(refused))
        except Exception as failure:
            # The edge of the thread: whatever went wrong ends this engine, and only this engine.
            logger.exception("The engine of %s failed", self._settings.name)
            reason = f"{type(failure).__name__}: {failure}"
            last = LoadFailed(reason) if self._context is None else Died(reason)
            error = EngineError(self._settings.name, reason)
            self._events.extend(Failed(sequence, error) for sequence in self._answers)
            self._answers.clear()
        try:
            self._free()
        finally:
            # Without a last event the model's callers would wait for ever.
            self._events.append(last)
            self._flush()

    # Loading and freeing

    def _load(self) -> None:
        settings = self._settings
        started = time.perf_counter()
        gpu_layers = -1 if settings.offload and can_offload() else 0
        try:
            model = self._model = Model(settings.paths, gpu_layers=gpu_layers, on_progress=self._report_progress)
        except UnusableModel:
            if self._is_stopping():
                raise LoadAbandoned from None
            raise
        length = settings.context_length or min(model.trained_context, DEFAULT_CONTEXT)
        slots = settings.max_seqs + settings.prefix_slots
        threads = usable_cores()
        context = Context(model, length=length, slots=slots, batch_tokens=BATCH_TOKENS, threads=threads)
        self._context = context
        if not context.has_memory:
            raise UnusableModel("It is not a model that generates text (an encoder, such as an embedding model).")
        self._batch = Batch(BATCH_TOKENS)
        self._scheduler = Scheduler(
            KvCache(context.length, slots),
            max_running=settings.max_seqs,
            batch_tokens=BATCH_TOKENS,
            prefill_beside_decode=PREFILL_BESIDE_DECODE,
            can_trim=model.can_trim,
        )
        self._defaults = settings.sampling.over(self._published_sampling(model)).over(DEFAULT_SAMPLING)
        template, why_no_chat = self._read_template(model)
        self._prompts = PromptReader(
            lambda text, add_special: model.tokenize(text, add_special=add_special),
            template=template,
            why_no_chat=why_no_chat,
            begin_token=model.begin_token(),
            vocab_size=model.vocab_size,
            context_length=context.length,
        )
        profile = ModelProfile(
            context_length=context.length,
            quantization=settings.quantization,
            size_bytes=model.size_bytes,
            fingerprint=self._fingerprint(model),
            can_chat=template is not None,
        )
        logger.info("Loaded %s in %.2f s", settings.name, time.perf_counter() - started)
        self._events.append(Loaded(profile))
        self._flush()

    def _report_progress(self, fraction: float) -> bool:
        if fraction >= self._reported + _PROGRESS_STEP or fraction >= 1:
            self._reported = fraction
            self._publish([LoadProgress(fraction)])
        return not self._is_stopping()

    def _read_template(self, model: Model) -> tuple[ChatTemplate | None, str]:
        """The chat template, or None and why there is none: the model can still continue text."""
        source = self._settings.chat_template or model.chat_template()
        if source is None:
            return None, (
                f"The model '{self._settings.name}' has no chat template: it continues text, at /v1/completions. "
                "To chat with it, set chat_template in its configuration."
            )
        try:
            return ChatTemplate(source, bos_token=model.begin_token(), eos_token=model.end_token()), ""
        except UnsupportedOperation as unusable:
            logger.warning("%s: %s", self._settings.name, unusable)
            return None, str(unusable)

    @staticmethod
    def _published_sampling(model: Model) -> Sampling:
        def number(key: str) -> float | None:
            value = model.metadata(f"general.sampling.{key}")
            return None if value is None else float(value)

        top_k = number("top_k")
        return Sampling(
            temperature=number("temp"),
            top_k=None if top_k is None else int(top_k),
            top_p=number("top_p"),
            min_p=number("min_p"),
            repetition_penalty=number("penalty_repeat"),
        )

    def _fingerprint(self, model: Model) -> str:
        facts = f"{version()} {self._settings.quantization} {model.size_bytes} {model.metadata('general.name')}"
        return "fp_" + hashlib.sha256(facts.encode()).hexdigest()[:12]

    def _free(self) -> None:
        for sampler in self._samplers.values():
            sampler.free()
        self._samplers.clear()
        if self._context is not None:
            self._context.free()
        if self._model is not None:
            self._model.free()
        self._context = self._model = None
        trim_heap()

    # Serving

    def _serve(self) -> None:
        while self._receive():
            if not self._scheduler.is_idle:
                self._step()
            self._flush()
        self._events.extend(Cancelled(sequence) for sequence in self._answers)
        self._answers.clear()

    def _flush(self) -> None:
        if self._events:
            self._publish(self._events)
            self._events = []

    def _receive(self) -> bool:
        """Take all messages; wait for one where there is nothing else to do. False on Stop."""
        wait = self._scheduler.is_idle
        while True:
            try:
                message = self._inbox.get(block=wait)
            except Empty:
                return True
            wait = False
            match message:
                case Submit():
                    self._submit(message)
                case Cancel(sequence):
                    self._cancel(sequence)
                case Stop():
                    return False

    def _submit(self, request: Submit) -> None:
        assert self._model is not None
        assert self._context is not None
        try:
            prompt = self._prompts.read(request.prompt)
            self._check_bias(request.sampling)
        except ModelyardError as refused:
            self._events.append(Failed(request.sequence, refused))
            return
        room = self._context.length - len(prompt)
        self._answers[request.sequence] = Answer(
            most_tokens=room if request.max_tokens is None else min(request.max_tokens, room),
            end_tokens=self._model.end_tokens,
            stops=request.stop,
        )
        self._samplers[request.sequence] = Sampler(
            request.sampling.over(self._defaults),
            self._model,
            self._context.length,
            prompt,
            ban_end=request.ignore_eos,
        )
        self._scheduler.add(TokenSequence(request.sequence, self._arrivals, prompt))
        self._arrivals += 1
        self._events.append(Accepted(request.sequence, len(prompt)))

    def _check_bias(self, sampling: Sampling) -> None:
        assert self._model is not None
        for token in sampling.logit_bias or ():
            if not 0 <= token < self._model.vocab_size:
                raise InvalidRequest(
                    f"logit_bias names token {token}, but this model's vocabulary has ids 0 to "
                    f"{self._model.vocab_size - 1}.",
                    "logit_bias",
                )

    def _cancel(self, sequence: SequenceId) -> None:
        if sequence in self._answers:
            self._end(sequence, Cancelled(sequence))

    def _end(self, sequence: SequenceId, last: Event) -> None:
        self._scheduler.remove(sequence)
        del self._answers[sequence]
        self._samplers.pop(sequence).free()
        self._events.append(last)

    def _step(self) -> None:
        assert self._model is not None
        assert self._context is not None
        feeds = self._decode()
        at = -1
        for feed in feeds:
            at += len(feed.tokens)
            if not feed.wants_logits:
                continue
            sequence = feed.sequence
            token = self._samplers[sequence.id].sample(self._context, at)
            sequence.tokens.append(token)
            answer = self._answers[sequence.id]
            text = answer.push(token, self._model.piece(token))
            if text:
                self._events.append(Token(sequence.id, text))
            if answer.finish_reason:
                self._end(sequence.id, Finished(sequence.id, answer.finish_reason, sequence.usage))

    def _decode(self) -> list[Feed]:
        """Compute the next step; its feeds, or [] where it did not fit and others must give way first."""
        assert self._context is not None
        feeds = self._scheduler.schedule()
        self._carry_out()
        if not feeds:
            return feeds
        length = 0
        for feed in feeds:
            assert feed.sequence.slot is not None
            length = self._batch.fill(
                length, feed.tokens, feed.position, feed.sequence.slot.index, wants_logits=feed.wants_logits
            )
        outcome = self._context.decode(self._batch, length)
        if outcome == Context.DECODED:
            return feeds
        if outcome != Context.CACHE_FULL:
            raise RuntimeError(f"llama_decode returned {outcome}: {self._context.failure()}")
        if not self._scheduler.undo(feeds):
            sequence = self._scheduler.running[0].id
            reason = "its KV cache has no room for this one request"
            self._end(sequence, Failed(sequence, EngineError(self._settings.name, reason)))
        self._carry_out()
        return []

    def _carry_out(self) -> None:
        assert self._context is not None
        for operation in self._scheduler.cache.operations:
            if isinstance(operation, Trim):
                self._context.trim(operation.slot, operation.length)
            else:
                self._context.share(operation.source, operation.target, operation.length)
        self._scheduler.cache.operations.clear()
