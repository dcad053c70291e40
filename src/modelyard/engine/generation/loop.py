"""The work of an engine's thread: take messages, run steps, publish, and leave when a Stop arrives.

Hot path: ``serve`` goes round once for each step of the engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

from modelyard.engine.generation.active import ActiveSequences
from modelyard.engine.generation.admission import Admission
from modelyard.engine.generation.computer import StepComputer
from modelyard.engine.generation.elastic import HOLD_S, MAX_STALL_S, STALLED_POLL_S, ElasticContext
from modelyard.engine.generation.outbox import Outbox
from modelyard.engine.generation.sequence_builder import Admitted
from modelyard.engine.generation.stats import StatsReporter
from modelyard.engine.generation.step import StepRunner
from modelyard.engine.input.reading_pool import ReadingPool
from modelyard.engine.input.tokenize_worker import TokenizeWorker
from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.checkpoints import CheckpointStore
from modelyard.engine.kv.disk import KvDiskCache
from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.placeholders import has_placeholders
from modelyard.engine.kv.slot_windows import checkpoint_limit
from modelyard.engine.llama import Batch
from modelyard.engine.loading.load import LoadedModel
from modelyard.engine.messages import Compiled, LoopMessage, PromptRead
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.settings import PARKED_PART, PREFILL_BESIDE_DECODE, EngineSettings
from modelyard.errors import EngineError, ModelyardError, UnsupportedOperation, UnusableModel
from modelyard.protocol.adapters import AdapterFile
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Failed,
    Publish,
    Returned,
    Suspended,
    Token,
)
from modelyard.protocol.kv_snapshot import KeptPrefixes
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.requests import (
    Cancel,
    Embed,
    Rank,
    RefuseGrowth,
    Resize,
    SetAdapters,
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
        self._adapters = loaded.adapters
        self._inbox = inbox
        cost = StepCost()
        checkpoints = None
        if not self._model.can_trim or (settings.is_windowed and settings.prefix_slots):
            checkpoints = CheckpointStore(checkpoint_limit(self._context) if settings.prefix_slots else 0)
        self._device = device
        is_on_host = settings.placement.kv_on_host or not loaded.model.is_on_devices
        self._share = device.make_share(settings.weight, settings.priority, is_on_host=is_on_host)
        self._record = record
        self._scheduler = Scheduler(
            KvCache(
                self._context.cells,
                settings.max_seqs + settings.prefix_slots,
                has_images=loaded.vision is not None,
                checkpoints=checkpoints,
                can_trim=self._model.can_trim,
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
            window=self._model.window if self._model.can_trim else 0,
            # Recurrent models keep a state instead of cells, so parking gains nothing.
            parked_bytes=self._context.allocated_bytes // PARKED_PART if self._model.can_trim else 0,
            max_prefixes=settings.prefix_slots,
        )
        self._scheduler.cache.has_short_windows = self._context.has_short_windows
        self._outbox = Outbox(publish)
        self._active = ActiveSequences(loaded.identity, self._scheduler, loaded.drafter, self._outbox)
        self._elastic = ElasticContext(
            settings.name, self._context, self._scheduler, self._offload, self._active.remaining
        )
        self._readers = ReadingPool(settings.name, record)
        self._admission = Admission(
            settings.name, loaded, self._readers, record, prompt_lookup=settings.prompt_lookup, send=inbox.put
        )
        self._computer = StepComputer(
            loaded.context,
            Batch(settings.batch_tokens),
            cost,
            loaded.vision,
            loaded.adapters,
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
        self._step = StepRunner(
            settings.name,
            loaded,
            self._scheduler,
            self._offload,
            self._computer,
            self._active,
            self._outbox,
            record,
        )
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
            self._outbox.add(left)
        self._active.suspend_all_by_failure()
        self._tokenize_worker.shutdown(Stop(suspend=True))
        self._outbox.flush()

    def close(self) -> None:
        """Free the samplers, and end the threads that read prompts, texts and grammars."""
        # Close the processes first: the threads may be waiting for them.
        self._tokenizers.close()
        self._readers.close()
        self._admission.grammars.close()
        self._active.free()

    def serve(self) -> Stop:
        """Serve until a Stop arrives, and return it."""
        with self._device.joined(self._share, self._record):
            stop = self._receive()
            while stop is None:
                if not self._scheduler.is_idle:
                    self._ask_for_cells(time.monotonic())
                    self._step.run()
                    # The step ends only after sampling, in which llama.cpp can fail too.
                    self._record.end_step()
                self._poll(time.monotonic())
                # Otherwise they are published right before the next step is computed, while their readers have time.
                if self._scheduler.is_idle or self._scheduler.is_stalled:
                    self._outbox.flush()
                stop = self._receive()
        return stop

    def _poll(self, now: float) -> None:
        if (stats := self._stats.poll(now)) is not None:
            self._outbox.add(stats)
        if self._elastic.is_given_up(now):
            waited = f"its context could not grow for {MAX_STALL_S:.0f} s: other models hold the memory"
            self._refuse_growth(EngineError(self._name, waited))

    def _ask_for_cells(self, now: float) -> None:
        """Before a step: have the residency give the context the size that the sequences need."""
        if (wanted := self._elastic.poll(now)) is not None:
            self._outbox.add(wanted)
            self._outbox.flush()
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
        self._outbox.flush()
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
                self._outbox.add(Cancelled(sequence))
            elif resumed is None:
                self._outbox.add(Returned(sequence))
            else:
                resumed = resumed if resumed.size_bytes <= room else resumed.without_kv()
                room -= resumed.size_bytes
                self._outbox.add(Suspended(sequence, resumed))
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
                cache.make_idle(slot)
            if stop.suspend:
                self._active.suspend(sequence, kept)
            else:
                self._outbox.add(Cancelled(sequence.id))
        return room

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
                    self._outbox.add(Failed(sequence, refused))
                case Tokenize():
                    self._tokenize_worker.submit(message)
                case Cancel(sequence):
                    self._cancel(sequence)
                case Resume(state, alone):
                    self._resume(state, alone=alone)
                case Restore(kept):
                    self._restore(kept)
                case SetShare() | SetAdapters() | Resize() | RefuseGrowth():
                    self._adjust(message)
                case PromptRead(sequence):
                    self._attempt(sequence, partial(self._admission.read, message))
                    self._tokenize_worker.finish(message)
                case Compiled(sequence):
                    self._attempt(sequence, partial(self._admission.compiled, message))
                case Stop():
                    return message

    def _adjust(self, message: SetShare | SetAdapters | Resize | RefuseGrowth) -> None:
        """Change how the engine serves; its sequences go on."""
        match message:
            case SetShare(weight, priority):
                self._device.set_share(self._share, weight, priority)
            case SetAdapters(files):
                self._set_adapters(files)
            case Resize():
                self._resize(message)
            case RefuseGrowth(error):  # pragma: no branch (mypy knows that it is the last one)
                self._refuse_growth(error)

    def _stalled_poll_s(self) -> float:
        return HOLD_S if self._scheduler.spares_prefixes else STALLED_POLL_S

    def _attempt(self, sequence: SequenceId, admit: Callable[[], Admitted | None]) -> None:
        try:
            admitted = admit()
        except ModelyardError as refused:
            self._outbox.add(Failed(sequence, refused))
        else:
            self._admit(admitted)

    def _admit(self, admitted: Admitted | None) -> None:
        if admitted is None:
            return
        running, resumed = admitted.running, admitted.resumed
        sequence, constraint = running.tokens, running.constraint
        if resumed is not None and resumed.kept is not None:
            self._record.doing = "restoring"
            self._offload.hold(resumed.kept, awaited_by=sequence.id)
            self._record.doing = "idle"
        self._active.add(running, alone=(running if resumed is None else resumed).request.alone)
        if resumed is None:
            prompt = tuple(sequence.tokens)
            if admitted.repairs:
                logger.debug("%s: conversation of request %d: %s", self._name, sequence.id, admitted.repairs)
            dropped = () if constraint is None else constraint.dropped
            self._outbox.add(
                Accepted(sequence.id, sequence.prompt_length, running.output_format, prompt, dropped, admitted.repairs)
            )
        if admitted.echo:
            self._outbox.add(Token(sequence.id, admitted.echo))

    def _resume(self, state: SuspendedSequence, *, alone: bool) -> None:
        if state.identity != self._identity:
            reason = "its weights or settings changed while a request was suspended"
            self._outbox.add(Failed(state.sequence, EngineError(self._name, reason)))
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
        self._outbox.flush()
        self._record.doing = "resizing"
        self._outbox.add(self._elastic.resize(message))
        self._stats.refresh()
        self._record.doing = "idle"
        # At once: others may wait for the memory.
        self._outbox.flush()

    def _set_adapters(self, files: Sequence[AdapterFile]) -> None:
        # Publish pending events before slow work.
        self._outbox.flush()
        self._record.doing = "loading"
        try:
            self._adapters.hold(files)
        except UnusableModel as unusable:
            logger.error("%s: its adapters stay as they were: %s", self._name, unusable)
        # llama.cpp compares adapters by their addresses, which may be those of others once these are freed.
        self._context.use_adapters(())
        self._adapters.free_unused(each.tokens.adapters for each in self._active.by_id.values())
        self._record.doing = "idle"

    def _refuse_growth(self, error: ModelyardError) -> None:
        for sequence in self._elastic.misfits():
            self._active.fail(sequence, error)

    def _cancel(self, sequence: SequenceId) -> None:
        if (running := self._active.by_id.get(sequence)) is not None:
            has_started = running.tokens.cached_tokens is not None
            self._active.end(sequence, Cancelled(sequence, running.tokens.usage if has_started else None))
        elif self._admission.discard(sequence):
            self._outbox.add(Cancelled(sequence))
        else:
            self._tokenize_worker.cancel(sequence)
