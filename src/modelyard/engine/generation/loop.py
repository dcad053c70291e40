"""The work of an engine's thread: take messages, schedule, decode, sample, publish.

Hot path: ``_step`` runs once for each step of the engine, and ``_sample`` once for each of its sequences. All events of
a step are published in one call, so that a step wakes its readers once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from modelyard.engine.generation import prompt_reports
from modelyard.engine.generation.admission import Admission, Admitted
from modelyard.engine.generation.computer import StepComputer
from modelyard.engine.generation.elastic import HOLD_S, MAX_STALL_S, STALLED_POLL_S, ElasticContext
from modelyard.engine.generation.finite import NOT_FINITE, peaks
from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.generation.sampling import draw_tokens
from modelyard.engine.generation.stats import StatsReporter
from modelyard.engine.guidance import Constraint, ConstraintBroken
from modelyard.engine.guidance.trial import reason_of
from modelyard.engine.input.reading_pool import ReadingPool
from modelyard.engine.input.tokenize_worker import TokenizeWorker
from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.checkpoints import CheckpointStore
from modelyard.engine.kv.disk import KvDiskCache
from modelyard.engine.kv.offload import KvOffload, checkpoint_limit
from modelyard.engine.kv.placeholders import ImageSpan, has_placeholders
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Batch, Context
from modelyard.engine.loading.load import LoadedModel
from modelyard.engine.messages import Compiled, LoopMessage, PromptRead
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.settings import PARKED_PART, PREFILL_BESIDE_DECODE, EngineSettings
from modelyard.errors import EngineError, GrammarBroken, ModelyardError, UnsupportedOperation
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Event,
    Failed,
    Finished,
    Publish,
    Returned,
    Suspended,
    Token,
)
from modelyard.protocol.kv_snapshot import KeptPrefixes, KeptPrompt
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.requests import (
    Cancel,
    Embed,
    Rank,
    RefuseGrowth,
    Resize,
    SetShare,
    Stop,
    Submit,
    Tokenize,
)
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId

logger = logging.getLogger(__name__)


class GenerationLoop:
    """Serves one loaded model. All methods run on the thread that loaded it."""

    def __init__(
        self,
        settings: EngineSettings,
        loaded: LoadedModel,
        device: Device,
        record: EngineRecord,
        inbox: SimpleQueue[LoopMessage],
        publish: Publish,
    ) -> None:
        self._name = settings.name
        self._model, self._context = loaded.model, loaded.context
        self._keep, self._keep_bytes = settings.kv_keep, settings.kv_keep_bytes
        self._tokenizers = loaded.tokenizers
        self._identity = loaded.identity
        self._inbox = inbox
        self._publish = publish
        cost = StepCost()
        checkpoints = None
        if not self._model.can_trim:
            checkpoints = CheckpointStore(checkpoint_limit(self._context) if settings.prefix_slots else 0)
        self._device = device
        is_on_host = settings.placement.kv_on_host or not loaded.model.is_on_devices
        self._share = device.make_share(settings.weight, settings.priority, is_on_host=is_on_host)
        self._record = record
        self._drafter = loaded.drafter
        self._scheduler = Scheduler(
            KvCache(
                self._context.cells,
                settings.max_seqs + settings.prefix_slots,
                has_images=loaded.vision is not None,
                checkpoints=checkpoints,
            ),
            max_running=settings.max_seqs,
            batch_tokens=settings.batch_tokens,
            prefill_beside_decode=PREFILL_BESIDE_DECODE,
            can_trim=self._model.can_trim,
            cost=cost,
            turn_ends=self._model.end_tokens,
        )
        self._offload = KvOffload(
            settings.name,
            self._scheduler.cache,
            self._context,
            window=self._model.window,
            # Recurrent models keep a state instead of cells, so parking gains nothing.
            parked_bytes=self._context.allocated_bytes // PARKED_PART if self._model.can_trim else 0,
            max_prefixes=settings.prefix_slots,
        )
        self._elastic = ElasticContext(settings.name, self._context, self._scheduler, self._offload, self._remaining)
        self._readers = ReadingPool(settings.name, record)
        self._admission = Admission(
            settings.name, loaded, self._readers, record, prompt_lookup=settings.prompt_lookup, send=inbox.put
        )
        self._computer = StepComputer(
            loaded.context,
            Batch(settings.batch_tokens),
            cost,
            loaded.vision,
            self._admission.grammars,
            device,
            self._share,
            record,
        )
        self._tokenize_worker = TokenizeWorker(
            settings.name,
            loaded.model,
            publish,
            self._readers,
            record,
            inbox.put,
            loaded.prompts,
            loaded.long_prompts,
        )
        self._running: dict[SequenceId, RunningSequence] = {}
        # Grammars of the running sequences that have one.
        self._constraints: dict[SequenceId, Constraint] = {}
        self._events: list[Event] = []
        self._stats = StatsReporter(self._scheduler, loaded.vision)
        self._disk_cache: KvDiskCache | None = None
        if settings.kv_keep == "disk" and settings.kv_dir is not None:
            self._disk_cache = KvDiskCache(settings.kv_dir, loaded.identity, settings.kv_keep_bytes)
            # At most half of the cells: older prompts would be evicted before they are reused.
            checkpoint_bytes = 0 if checkpoints is None else checkpoints.limit_bytes
            for prompt in self._disk_cache.load(self._context.cells // 2, settings.prefix_slots, checkpoint_bytes):
                self._offload.hold(prompt)
            self._offload.use_disk(self._disk_cache)

    def fail(self) -> None:
        """Suspend all sequences after a failure: each can be resumed elsewhere from the tokens that were published."""
        for sequence, resumed in self._admission.pending:
            self._admission.discard(sequence)
            left = Returned(sequence) if resumed is None else Suspended(sequence, resumed.without_kv())
            self._events.append(left)
        for running in self._running.values():
            state = running.suspended_by_failure(self._identity)
            self._events.append(Suspended(running.id, state))
        self._tokenize_worker.shutdown(Stop(suspend=True))
        self._flush()

    def free(self) -> None:
        """Free the samplers, and end the threads that read prompts, texts and grammars."""
        # Close the processes first: the threads may be waiting for them.
        self._tokenizers.close()
        self._readers.close()
        self._admission.grammars.close()
        for running in self._running.values():
            running.sampler.free()
        self._running.clear()

    def serve(self) -> Stop:
        """Serve until a Stop arrives, and return it."""
        with self._device.joined(self._share, self._record):
            stop = self._receive()
            while stop is None:
                if not self._scheduler.is_idle:
                    self._ask_for_cells(time.monotonic())
                    self._step()
                    # The step ends only after sampling, in which llama.cpp can fail too.
                    self._record.end_step()
                self._poll(time.monotonic())
                # Otherwise they are published right before the next step is computed, while their readers have time.
                if self._scheduler.is_idle or self._scheduler.is_stalled:
                    self._flush()
                stop = self._receive()
        return stop

    def _poll(self, now: float) -> None:
        if (stats := self._stats.poll(now)) is not None:
            self._events.append(stats)
        if self._elastic.is_given_up(now):
            waited = f"its context could not grow for {MAX_STALL_S:.0f} s: other models hold the memory"
            self._refuse_growth(EngineError(self._name, waited))

    def _ask_for_cells(self, now: float) -> None:
        """Before a step: have the residency give the context the size that the sequences need."""
        if (wanted := self._elastic.poll(now)) is not None:
            self._events.append(wanted)
            self._flush()
        self._scheduler.spares_prefixes = self._elastic.may_get_more(now)

    def shutdown(self, stop: Stop) -> KeptPrefixes | None:
        """End or suspend all sequences; return the prompts that are kept in memory, if any are."""
        room = self._end_pending(stop, stop.keep_bytes)
        self._tokenize_worker.shutdown(stop)
        self._record.doing = "saving"
        # Rejected draft tokens of the last step must not be saved.
        self._offload.carry_out()
        room = self._end_running(stop, room)
        self._offload.carry_out()
        self._flush()
        if self._disk_cache is not None and not stop.discard:
            # A token on disk has 32 bits, which are too few for the placeholder of an image.
            self._disk_cache.save(kept for kept in self._offload.idle_prefixes() if not has_placeholders(kept.tokens))
        if self._keep != "memory" or stop.discard:
            return None
        return KeptPrefixes(self._identity, tuple(self._offload.save_within(min(room, self._keep_bytes))))

    def _end_pending(self, stop: Stop, room: int) -> int:
        """End or suspend the requests that are not admitted yet; return the bytes of ``room`` that are left.

        Their prompts and grammars are not waited for: that would delay the model that needs the memory.
        """
        for sequence, resumed in self._admission.pending:
            self._admission.discard(sequence)
            if not stop.suspend:
                self._events.append(Cancelled(sequence))
            elif resumed is None:
                self._events.append(Returned(sequence))
            else:
                resumed = resumed if resumed.size_bytes <= room else resumed.without_kv()
                room -= resumed.size_bytes
                self._events.append(Suspended(sequence, resumed))
        return room

    def _end_running(self, stop: Stop, room: int) -> int:
        """End or suspend the admitted sequences, with KV state as far as it fits; return the bytes that are left."""
        cache = self._scheduler.cache
        for sequence in self._scheduler.drain():
            slot, kept = sequence.slot, None
            sequence.slot = None
            if slot is not None:
                if stop.suspend and slot.tokens and self._context.state_bytes(slot.index) <= room:
                    kept = self._offload.save(slot)
                    room -= kept.kv.nbytes
                    # Empty the slot, so that it is not kept a second time as a prefix.
                    cache.trim(slot, 0)
                cache.release(slot)
            self._events.append(self._suspend(sequence, kept) if stop.suspend else Cancelled(sequence.id))
        return room

    def _suspend(self, sequence: TokenSequence, kept: KeptPrompt | None) -> Suspended:
        """Remove a sequence and return its state, which owns the sampler from now on."""
        self._constraints.pop(sequence.id, None)
        return Suspended(sequence.id, self._running.pop(sequence.id).suspended(self._identity, kept))

    def _flush(self) -> None:
        if self._events:
            self._publish(self._events)
            self._events = []

    def _receive(self) -> Stop | None:
        """Handle all messages up to a Stop, and return that; block for one only while there is nothing to compute."""
        is_stalled = self._scheduler.is_stalled
        wait = self._scheduler.is_idle or is_stalled
        timeout = self._stalled_poll_s() if is_stalled else self._computer.team.idle_s
        while True:
            try:
                message = self._inbox.get(block=wait, timeout=timeout)
            except Empty:
                if wait and not is_stalled:
                    self._computer.team.end()
                return None
            wait = False
            match message:
                case Submit(sequence):
                    self._attempt(sequence, partial(self._admission.submit, message))
                case Embed(sequence) | Rank(sequence):
                    lacking = "makes no embeddings" if isinstance(message, Embed) else "ranks no documents"
                    refused = UnsupportedOperation(f"'{self._name}' generates text and {lacking}.", "model")
                    self._events.append(Failed(sequence, refused))
                case Tokenize():
                    self._tokenize_worker.submit(message)
                case Cancel(sequence):
                    self._cancel(sequence)
                case Resume(state, alone):
                    self._resume(state, alone=alone)
                case Restore(kept):
                    self._restore(kept)
                case SetShare(weight, priority):
                    self._device.set_share(self._share, weight, priority)
                case Resize():
                    self._resize(message)
                case RefuseGrowth(error):
                    self._refuse_growth(error)
                case PromptRead(sequence):
                    self._attempt(sequence, partial(self._admission.read, message))
                    self._tokenize_worker.finish(message)
                case Compiled(sequence):
                    self._attempt(sequence, partial(self._admission.compiled, message))
                case Stop():
                    return message

    def _stalled_poll_s(self) -> float:
        return HOLD_S if self._scheduler.spares_prefixes else STALLED_POLL_S

    def _attempt(self, sequence: SequenceId, admit: Callable[[], Admitted | None]) -> None:
        try:
            admitted = admit()
        except ModelyardError as refused:
            self._events.append(Failed(sequence, refused))
        else:
            self._admit(admitted)

    def _admit(self, admitted: Admitted | None) -> None:
        if admitted is None:
            return
        running, resumed = admitted.running, admitted.resumed
        sequence = running.tokens
        self._running[sequence.id] = running
        if (constraint := running.constraint) is not None:
            self._constraints[sequence.id] = constraint
        if resumed is not None and resumed.kept is not None:
            self._record.doing = "restoring"
            self._offload.hold(resumed.kept, awaited_by=sequence.id)
            self._record.doing = "idle"
        self._scheduler.add(sequence, alone=(running if resumed is None else resumed).request.alone)
        if resumed is None:
            prompt = tuple(sequence.tokens)
            if admitted.repairs:
                logger.debug("%s: conversation of request %d: %s", self._name, sequence.id, admitted.repairs)
            dropped = () if constraint is None else constraint.dropped
            self._events.append(
                Accepted(sequence.id, sequence.prompt_length, running.output_format, prompt, dropped, admitted.repairs)
            )
        if admitted.echo:
            self._events.append(Token(sequence.id, admitted.echo))

    def _resume(self, state: SuspendedSequence, *, alone: bool) -> None:
        if state.identity != self._identity:
            reason = "its weights or settings changed while a request was suspended"
            self._events.append(Failed(state.sequence, EngineError(self._name, reason)))
            return
        if alone != state.request.alone:
            state = replace(state, request=replace(state.request, alone=alone))
        self._attempt(state.sequence, partial(self._admission.resume, state))

    def _restore(self, kept: KeptPrefixes) -> None:
        if kept.identity != self._identity:
            logger.warning("%s: prompts kept in memory are of other weights or settings", self._name)
            return
        self._record.doing = "restoring"
        # Held in reverse, so that the most recently used prompt is again the last one.
        for prompt in reversed(kept.prompts):
            self._offload.hold(prompt)
        self._record.doing = "idle"

    def _resize(self, message: Resize) -> None:
        # Publish pending events before slow work.
        self._flush()
        self._record.doing = "resizing"
        self._events.append(self._elastic.resize(message))
        self._stats.refresh()
        self._record.doing = "idle"
        # At once: others may wait for the memory.
        self._flush()

    def _refuse_growth(self, error: ModelyardError) -> None:
        for sequence in self._elastic.misfits():
            self._fail(sequence, error)

    def _remaining(self, sequence: TokenSequence) -> int:
        """Return how many tokens the answer of a sequence may still have."""
        return max(0, self._running[sequence.id].output.max_tokens - sequence.answer_length)

    def _cancel(self, sequence: SequenceId) -> None:
        if (running := self._running.get(sequence)) is not None:
            has_started = running.tokens.cached_tokens is not None
            self._end(sequence, Cancelled(sequence, running.tokens.usage if has_started else None))
        elif self._admission.discard(sequence):
            self._events.append(Cancelled(sequence))
        else:
            self._tokenize_worker.cancel(sequence)

    def _end(self, sequence: SequenceId, last: Event) -> None:
        self._scheduler.remove(sequence)
        self._running.pop(sequence).sampler.free()
        self._constraints.pop(sequence, None)
        if self._drafter is not None:
            self._drafter.release(sequence)
        self._events.append(last)

    def _fail(self, sequence: TokenSequence, error: ModelyardError) -> None:
        self._end(sequence.id, Failed(sequence.id, error, sequence.usage))

    def _step(self) -> None:
        chunks = self._decode()
        rows = sum(chunk.outputs for chunk in chunks)
        if not rows:
            return
        logits = self._context.logits(rows)
        likeliest = peaks(logits)
        index = row = 0
        for chunk in chunks:
            index += len(chunk.tokens)
            if chunk.outputs:
                end = row + chunk.outputs
                self._sample(
                    chunk, index - chunk.outputs, logits[row:end], likeliest[row:end], is_shared=len(chunks) > 1
                )
                row = end

    def _sample(
        self,
        chunk: ScheduledChunk,
        index: int,
        logits: npt.NDArray[np.float32],
        likeliest: list[int | None],
        *,
        is_shared: bool,
    ) -> None:
        """Sample the next tokens of a sequence, and report them; end it where it is over.

        Args:
            chunk: the tokens that were computed.
            index: index in the batch of the first of them with logits.
            logits: [outputs, vocab_size].
            likeliest: the most likely token of each row; None where there is none.
            is_shared: whether the step had other sequences.
        """
        sequence, drafted = chunk.sequence, chunk.tokens[len(chunk.tokens) - chunk.outputs + 1 :]
        running = self._running[sequence.id]
        output = running.output
        constraint = self._constraints.get(sequence.id) if self._constraints else None
        if None in likeliest:
            self._fail(sequence, EngineError(self._name, NOT_FINITE))
            return
        if sequence.scores_prompt:
            scored = prompt_reports.scores(running, chunk, logits, self._model)
            if scored is None:
                return
            self._events += scored
        if output.max_tokens == 0:
            self._end(sequence.id, Finished(sequence.id, "length", sequence.usage))
            return
        try:
            drawn, accepted = draw_tokens(
                self._model,
                self._context,
                running,
                constraint,
                drafted,
                index,
                logits,
                likeliest,
                is_shared=is_shared,
            )
        except ConstraintBroken as broken:
            self._fail(sequence, GrammarBroken(reason_of(str(broken))))
            return
        if drafted:
            self._scheduler.drafts.settle(chunk, accepted)
        if self._scheduler.alone is sequence:
            self._scheduler.alone = None
        running.published = len(sequence.tokens)
        self._events.append(drawn)
        if output.finish_reason:
            self._end(sequence.id, Finished(sequence.id, output.finish_reason, running.usage, output.stopped_by))

    def _decode(self) -> list[ScheduledChunk]:
        """Compute the next step; return its chunks, or [] where it did not fit and others must give way first."""
        # Rejected draft tokens of the last step must not be saved.
        self._offload.carry_out()
        is_moving = self._offload.is_due(self._scheduler.admissible)
        if self._drafter is not None or is_moving:
            # Publish pending events before slow work.
            self._flush()
        if is_moving:
            self._record.doing = "saving"
            self._offload.prepare_step(self._scheduler.admissible)
            self._record.doing = "idle"
        if self._drafter is not None and self._scheduler.only_decodes and self._scheduler.alone is None:
            self._computer.draft(self._drafter, self._scheduler.running)
        chunks = self._scheduler.schedule()
        if self._scheduler.started:
            for each in self._scheduler.started:
                self._events += prompt_reports.started(self._running[each.id])
            self._scheduler.started.clear()
        self._offload.carry_out()
        if not chunks:
            return chunks
        self._flush()
        if chunks[0].image is not None:
            outcome = self._decode_image(chunks[0], chunks[0].image)
            if outcome is None:
                return []
        else:
            outcome = self._computer.compute(chunks, self._constraints)
        if outcome == Context.DECODED:
            if self._scheduler.save_checkpoints(chunks):
                self._offload.carry_out()
            self._events += prompt_reports.progress(chunks, self._running)
            return chunks
        if outcome != Context.CACHE_FULL:
            raise RuntimeError(f"llama_decode returned {outcome}: {self._context.failure()}")
        if not self._scheduler.undo(chunks):
            self._fail(
                self._scheduler.running[0], EngineError(self._name, "its KV cache has no room for this one request")
            )
        self._offload.carry_out()
        return []

    def _decode_image(self, chunk: ScheduledChunk, image: ImageSpan) -> int | None:
        """Run the model on an image; return what ``Context.decode`` returns, or None where the request failed."""
        sequence = chunk.sequence
        assert sequence.slot is not None
        try:
            return self._computer.compute_image(chunk, image)
        except (ModelyardError, RuntimeError) as failure:
            # The failure concerns this image alone: other sequences are unaffected.
            logger.warning("%s: %s", self._name, failure)
            self._scheduler.cache.trim(sequence.slot, chunk.position)
            self._fail(
                sequence, failure if isinstance(failure, ModelyardError) else EngineError(self._name, str(failure))
            )
            self._offload.carry_out()
            return None
