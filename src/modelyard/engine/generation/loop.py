"""The work of an engine's thread: take messages, schedule, decode, sample, publish.

Hot path: ``_step`` runs once for every token of every stream. All events of a step are published in one call, so that
a step wakes its readers once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from modelyard.engine.generation.admission import Admission, Admitted
from modelyard.engine.generation.finite import NOT_FINITE, is_usable
from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.generation.stats import StatsReporter
from modelyard.engine.guidance import Constraint, ConstraintBroken
from modelyard.engine.guidance.trial import reason_of
from modelyard.engine.input.reading_pool import ReadingPool
from modelyard.engine.input.tokenize_worker import TokenizeWorker
from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.disk import KvDiskCache
from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.placeholders import ImageSpan, has_pictures
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Batch, Context
from modelyard.engine.loading.load import LoadedModel
from modelyard.engine.messages import Compiled, LoopMessage, PromptRead
from modelyard.engine.output.logprobs import log_softmax
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.engine.scheduling.fair_share import Device, DeviceShare
from modelyard.engine.scheduling.scheduler import ScheduledChunk, Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.settings import PARKED_PART, PREFILL_BESIDE_DECODE, EngineSettings
from modelyard.engine.speculative.policy import MAX_DRAFTED
from modelyard.errors import EngineError, GrammarBroken, ModelyardError, UnsupportedOperation
from modelyard.protocol.events import Accepted, Cancelled, Event, Failed, Finished, Returned, Started, Suspended, Token
from modelyard.protocol.kv_snapshot import KeptPrefixes, KeptPrompt
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.requests import Cancel, Embed, Rank, SetShare, Stop, Submit, Tokenize
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId

logger = logging.getLogger(__name__)

Publish = Callable[[Sequence[Event]], None]


class GenerationLoop:
    """Serves one loaded model. All methods run on the thread that loaded it."""

    def __init__(
        self,
        settings: EngineSettings,
        resident: LoadedModel,
        device: Device,
        record: EngineRecord,
        inbox: SimpleQueue[LoopMessage],
        publish: Publish,
    ) -> None:
        self._name = settings.name
        self._model, self._context = resident.model, resident.context
        self._keep, self._keep_bytes = settings.kv_keep, settings.kv_keep_bytes
        self._vision = resident.vision
        self._tokenizers = resident.tokenizers
        self._identity = resident.identity
        self._inbox = inbox
        self._publish = publish
        self._batch = Batch(settings.batch_tokens)
        self._cost = StepCost()
        self._device, self._seat = device, DeviceShare(settings.weight, settings.priority)
        self._record = record
        self._drafter = resident.drafter
        self._scheduler = Scheduler(
            KvCache(
                self._context.length,
                settings.max_seqs + settings.prefix_slots,
                has_pictures=resident.vision is not None,
            ),
            max_running=settings.max_seqs,
            batch_tokens=settings.batch_tokens,
            prefill_beside_decode=PREFILL_BESIDE_DECODE,
            can_trim=self._model.can_trim,
            cost=self._cost,
        )
        self._moves = KvOffload(
            settings.name,
            self._scheduler.cache,
            self._context,
            window=self._model.window,
            # Where nothing can be cut there are states in place of cells, which nobody looks over.
            parked_bytes=self._context.allocated_bytes // PARKED_PART if self._model.can_trim else 0,
            most_prefixes=settings.prefix_slots,
        )
        self._readers = ReadingPool(settings.name, record)
        self._admission = Admission(
            settings.name, resident, self._readers, record, looks_up=settings.prompt_lookup, send=inbox.put
        )
        self._speller = TokenizeWorker(
            settings.name,
            resident.model,
            publish,
            self._readers,
            record,
            inbox.put,
            resident.prompts,
            resident.long_prompts,
        )
        self._running: dict[SequenceId, RunningSequence] = {}
        # Of those of them that follow a grammar.
        self._constraints: dict[SequenceId, Constraint] = {}
        self._events: list[Event] = []
        self._pulse = StatsReporter(self._scheduler, resident.vision)
        self._store: KvDiskCache | None = None
        if settings.kv_keep == "disk" and settings.kv_dir is not None:
            self._store = KvDiskCache(settings.kv_dir, resident.identity, settings.kv_keep_bytes)
            # No more once half of the cells are taken: older ones would hardly be asked for before they are evicted.
            for prompt in self._store.load(self._context.length // 2, settings.prefix_slots):
                self._moves.hold(prompt)

    def fail(self) -> None:
        """Part with all sequences after a failure: each can go on elsewhere from what was published of it."""
        for sequence, resumed in self._admission.unready:
            self._admission.forget(sequence)
            left = Returned(sequence) if resumed is None else Suspended(sequence, resumed.without_kv())
            self._events.append(left)
        for running in self._running.values():
            state = running.suspended_by_failure(self._identity)
            self._events.append(Suspended(running.id, state))
        self._speller.leave(Stop(suspend=True))
        self._flush()

    def free(self) -> None:
        """Free the samplers, and end the threads of prompts, grammars and texts."""
        # First: the threads wait for its processes.
        self._tokenizers.close()
        self._readers.close()
        self._admission.grammars.close()
        for running in self._running.values():
            running.sampler.free()
        self._running.clear()

    def serve(self) -> Stop:
        """Serve until told to stop."""
        with self._device.joined(self._seat, self._record):
            stop = self._receive()
            while stop is None:
                if not self._scheduler.is_idle:
                    self._step()
                    # Not before its tokens are drawn, which llama.cpp does as well.
                    self._record.end_step()
                if (vitals := self._pulse.beat(time.monotonic())) is not None:
                    self._events.append(vitals)
                # Else they are published right before the next step is computed, which leaves their readers time.
                if self._scheduler.is_idle:
                    self._flush()
                stop = self._receive()
        return stop

    def leave(self, stop: Stop) -> KeptPrefixes | None:
        """Part with all sequences; the prompts that are kept in memory, if any are."""
        room = stop.keep_bytes
        for unready, resumed in self._admission.unready:
            # To wait for their prompts or grammars would keep others from the memory.
            self._admission.forget(unready)
            if not stop.suspend:
                self._events.append(Cancelled(unready))
            elif resumed is None:
                self._events.append(Returned(unready))
            else:
                resumed = resumed if resumed.size_bytes <= room else resumed.without_kv()
                room -= resumed.size_bytes
                self._events.append(Suspended(unready, resumed))
        self._speller.leave(stop)
        self._record.doing = "saving"
        # Wrong guesses of the last step are not to be saved.
        self._moves.carry_out()
        cache = self._scheduler.cache
        for sequence in self._scheduler.drain():
            slot, kept = sequence.slot, None
            sequence.slot = None
            if slot is not None:
                if stop.suspend and slot.tokens and self._context.state_bytes(slot.index) <= room:
                    kept = self._moves.save(slot)
                    room -= kept.kv.nbytes
                    # It is not kept a second time, as a prompt.
                    cache.trim(slot, 0)
                cache.release(slot)
            self._events.append(self._suspend(sequence, kept) if stop.suspend else Cancelled(sequence.id))
        self._moves.carry_out()
        self._flush()
        if self._store is not None and not stop.discard:
            # On disk a token has 32 bits, which the name of a picture has not.
            self._store.save(kept for kept in self._moves.idle_prefixes() if not has_pictures(kept.tokens))
        if self._keep != "memory" or stop.discard:
            return None
        return KeptPrefixes(self._identity, tuple(self._moves.save_within(min(room, self._keep_bytes))))

    def _suspend(self, sequence: TokenSequence, kept: KeptPrompt | None) -> Suspended:
        """From here on the sampler is owned by whoever holds the state."""
        self._constraints.pop(sequence.id, None)
        return Suspended(sequence.id, self._running.pop(sequence.id).suspended(self._identity, kept))

    def _flush(self) -> None:
        if self._events:
            self._publish(self._events)
            self._events = []

    def _receive(self) -> Stop | None:
        """Take all messages up to a Stop; wait for one where there is nothing else to do."""
        wait = self._scheduler.is_idle
        while True:
            try:
                message = self._inbox.get(block=wait)
            except Empty:
                return None
            wait = False
            match message:
                case Submit(sequence):
                    self._attempt(sequence, partial(self._admission.submit, message))
                case Embed(sequence):
                    refused = UnsupportedOperation(f"'{self._name}' generates text and makes no embeddings.", "model")
                    self._events.append(Failed(sequence, refused))
                case Rank(sequence):
                    refused = UnsupportedOperation(f"'{self._name}' generates text and ranks no documents.", "model")
                    self._events.append(Failed(sequence, refused))
                case Tokenize():
                    self._speller.take(message)
                case Cancel(sequence):
                    self._cancel(sequence)
                case Resume(state, alone):
                    self._resume(state, alone=alone)
                case Restore(kept):
                    self._restore(kept)
                case SetShare(weight, priority):
                    self._device.reseat(self._seat, weight, priority)
                case PromptRead(sequence):
                    self._attempt(sequence, partial(self._admission.read, message))
                    self._speller.show(message)
                case Compiled(sequence):
                    self._attempt(sequence, partial(self._admission.compiled, message))
                case Stop():
                    return message

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
            self._moves.hold(resumed.kept, awaited_by=sequence.id)
            self._record.doing = "idle"
        self._scheduler.add(sequence, alone=(running if resumed is None else resumed).request.alone)
        if resumed is None:
            prompt = tuple(sequence.tokens)
            self._events.append(Accepted(sequence.id, sequence.prompt_length, running.reading, prompt))
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
        # The most recently used last, as it was.
        for prompt in reversed(kept.prompts):
            self._moves.hold(prompt)
        self._record.doing = "idle"

    def _cancel(self, sequence: SequenceId) -> None:
        if sequence in self._running:
            removed = self._scheduler.remove(sequence)
            has_begun = removed is not None and removed.cached_tokens is not None
            self._end(sequence, Cancelled(sequence, removed.usage if removed and has_begun else None))
        elif self._admission.forget(sequence):
            self._events.append(Cancelled(sequence))
        else:
            self._speller.cancel(sequence)

    def _end(self, sequence: SequenceId, last: Event) -> None:
        self._scheduler.remove(sequence)
        self._running.pop(sequence).sampler.free()
        self._constraints.pop(sequence, None)
        if self._drafter is not None:
            self._drafter.leave(sequence)
        self._events.append(last)

    def _step(self) -> None:
        feeds = self._decode()
        rows = sum(feed.outputs for feed in feeds)
        if not rows:
            return
        logits = self._context.logits(rows)
        index = row = 0
        for feed in feeds:
            index += len(feed.tokens)
            if feed.outputs:
                self._sample(feed, index - feed.outputs, logits[row : row + feed.outputs])
                row += feed.outputs

    def _sample(self, feed: ScheduledChunk, index: int, logits: npt.NDArray[np.float32]) -> None:
        """Let a sequence go on by one token, and by one more for each guess that was right.

        Args:
            feed: what it was fed.
            index: in the batch, of the first of its tokens with logits.
            logits: [outputs, vocab_size].
        """
        sequence, guesses = feed.sequence, feed.tokens[len(feed.tokens) - feed.outputs + 1 :]
        running = self._running[sequence.id]
        sampler, answer = running.sampler, running.output
        constraint = self._constraints.get(sequence.id) if self._constraints else None
        text, right, trail, before = "", 0, answer.trail, len(sequence.tokens)
        if not all(map(is_usable, logits)):
            self._end(sequence.id, Failed(sequence.id, EngineError(self._name, NOT_FINITE), sequence.usage))
            return
        while True:
            scores = None if trail is None else log_softmax(logits[right])
            try:
                token = sampler.sample(self._context, index + right, logits[right])
            except ConstraintBroken as broken:
                self._end(sequence.id, Failed(sequence.id, GrammarBroken(reason_of(str(broken))), sequence.usage))
                return
            if guesses and not sampler.is_certain(logits[right], token):
                # Computed again by itself: a guess is not to change the answer.
                sequence.is_alone = True
                break
            sequence.tokens.append(token)
            piece = self._model.piece_of(token, answer.spelt)
            text += answer.push(token, piece)
            if trail is not None and scores is not None and token not in self._model.end_tokens:
                trail.add(token, len(piece), scores)
            if constraint is not None and constraint.is_complete and answer.stopped_by is None:
                # Spares the step that would say so, and needs no token that does.
                text += answer.complete()
            if answer.finish_reason or right == len(guesses) or token != guesses[right]:
                break
            right += 1
        if guesses:
            assert sequence.proposer is not None
            sequence.proposer.record_verified(right if sequence.is_alone else len(guesses), right)
            self._scheduler.settle(feed, right if sequence.is_alone else right + 1)
        if self._scheduler.alone is sequence:
            self._scheduler.alone = None
        ids = tuple(sequence.tokens[before:])
        running.published = len(sequence.tokens)
        if trail is None:
            self._events.append(Token(sequence.id, text, (), ids))
        elif answer.finish_reason:
            logprobs = trail.release_last(text, is_cut=answer.stopped_by is not None)
            self._events.append(Token(sequence.id, text, logprobs, ids))
        else:
            self._events.append(Token(sequence.id, text, trail.release(text), ids, trail.pending))
        if answer.finish_reason:
            self._end(sequence.id, Finished(sequence.id, answer.finish_reason, sequence.usage, answer.stopped_by))

    def _decode(self) -> list[ScheduledChunk]:
        """Compute the next step; its feeds, or [] where it did not fit and others must give way first."""
        # Wrong guesses of the last step are not to be saved.
        self._moves.carry_out()
        is_moving = self._moves.is_due(self._scheduler.admissible)
        if self._drafter is not None or is_moving:
            # What was said is not to wait for copies and drafts.
            self._flush()
        if is_moving:
            self._record.doing = "saving"
            self._moves.make_way(self._scheduler.admissible)
            self._record.doing = "idle"
        if self._drafter is not None and self._scheduler.only_decodes and self._scheduler.alone is None:
            with self._device.step(self._seat):
                running = self._scheduler.running
                # The draft model reads what it has not seen yet of the sequences, which may be all of it.
                tokens = sum(len(sequence.tokens) + MAX_DRAFTED for sequence in running)
                self._record.begin_step([sequence.id for sequence in running], tokens)
                self._drafter.draft(running)
                self._record.end_step()
        feeds = self._scheduler.schedule()
        if self._scheduler.begun:
            self._events.extend(Started(begun.id, begun.cached_tokens or 0) for begun in self._scheduler.begun)
            self._scheduler.begun.clear()
        self._moves.carry_out()
        if not feeds:
            return feeds
        self._flush()
        if feeds[0].picture is not None:
            outcome = self._show(feeds[0], feeds[0].picture)
            if outcome is None:
                return []
        else:
            outcome = self._compute(feeds)
        if outcome == Context.DECODED:
            return feeds
        if outcome != Context.CACHE_FULL:
            raise RuntimeError(f"llama_decode returned {outcome}: {self._context.failure()}")
        if not self._scheduler.undo(feeds):
            sequence = self._scheduler.running[0]
            reason = "its KV cache has no room for this one request"
            self._end(sequence.id, Failed(sequence.id, EngineError(self._name, reason), sequence.usage))
        self._moves.carry_out()
        return []

    def _compute(self, feeds: list[ScheduledChunk]) -> int:
        """Run the model over tokens; what ``Context.decode`` returns."""
        length = 0
        for feed in feeds:
            assert feed.sequence.slot is not None
            position = feed.sequence.position_at(feed.position)
            length = self._batch.fill(length, feed.tokens, position, feed.sequence.slot.index, outputs=feed.outputs)
        if self._constraints:
            for feed in feeds:
                if feed.outputs and (constraint := self._constraints.get(feed.sequence.id)) is not None:
                    constraint.prepare(self._admission.grammars.masks)
        with self._device.step(self._seat):
            self._record.begin_step([feed.sequence.id for feed in feeds], length)
            began = time.perf_counter()
            outcome = self._context.decode(self._batch, length)
            took_s = time.perf_counter() - began
        if outcome == Context.DECODED:
            self._cost.observe(length, took_s)
        return outcome

    def _show(self, feed: ScheduledChunk, picture: ImageSpan) -> int | None:
        """Run the model over a picture; what ``Context.decode`` returns, None where the request cannot go on."""
        sequence = feed.sequence
        assert self._vision is not None
        assert sequence.slot is not None
        try:
            with self._device.step(self._seat):
                self._record.begin_step([sequence.id], len(feed.tokens))
                embeddings = self._vision.embeddings(picture)
                position = sequence.position_at(feed.position)
                return self._context.decode_embeddings(embeddings, position, sequence.slot.index)
        except (ModelyardError, RuntimeError) as failure:
            # Of this picture alone: what others have is as it was.
            logger.warning("%s: %s", self._name, failure)
            self._scheduler.cache.trim(sequence.slot, feed.position)
            error = failure if isinstance(failure, ModelyardError) else EngineError(self._name, str(failure))
            self._end(sequence.id, Failed(sequence.id, error, sequence.usage))
            self._moves.carry_out()
            return None
