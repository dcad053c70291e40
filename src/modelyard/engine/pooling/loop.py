"""The loop of an engine that embeds or ranks: take messages, pack inputs, compute, publish.

Hot path: ``_step`` runs once for every batch. Inputs of all waiting requests share batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from modelyard.engine.input.reading_pool import ReadingPool, outcome_of
from modelyard.engine.input.tokenize_worker import TokenizeWorker
from modelyard.engine.llama import OpenMpTeam
from modelyard.engine.messages import LoopMessage, PromptRead
from modelyard.engine.pooling.embed_input import InputReader
from modelyard.engine.pooling.load import LoadedPoolingModel
from modelyard.engine.pooling.queue import EmbedQueue, Job
from modelyard.engine.pooling.rank_input import PairReader
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.settings import EngineSettings
from modelyard.errors import ContextNotPermitted, EngineError, ModelyardError, UnsupportedOperation
from modelyard.protocol.events import Cancelled, Embedded, Event, Failed, Publish, Ranked, Returned
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.requests import Cancel, Embed, Rank, SetShare, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId


def normalised(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return ``vectors``, [n, dimensions], scaled to length 1; vectors of zeros stay as they are."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def probabilities(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return how well each document answers, [n], from ``scores``, [n, scores] as llama.cpp gives them.

    A single score is a logit, as sentence-transformers' cross-encoders take it; several scores are already
    probabilities, of which the first is that of "yes".
    """
    if scores.shape[1] > 1:
        return scores[:, 0].copy()
    # The logistic function as a tanh of half the argument, which overflows nowhere.
    logits = scores[:, 0].astype(np.float64)
    return (0.5 * (1.0 + np.tanh(0.5 * logits))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _PendingRequest:
    """A request whose inputs are being read."""

    request: Embed | Rank
    outcome: Future[list[list[int]]]


class PoolingLoop:
    """Serves one loaded model that embeds or ranks. All methods run on the thread that owns its engine."""

    def __init__(
        self,
        settings: EngineSettings,
        loaded: LoadedPoolingModel,
        device: Device,
        record: EngineRecord,
        inbox: SimpleQueue[LoopMessage],
        publish: Publish,
    ) -> None:
        self._name = settings.name
        self._context, self._inputs = loaded.context, loaded.inputs
        self._inbox = inbox
        self._publish = publish
        self._device = device
        is_on_host = settings.placement.kv_on_host or not loaded.model.is_on_devices
        self._share = device.make_share(settings.weight, settings.priority, is_on_host=is_on_host)
        self._record = record
        self._queue = EmbedQueue(settings.batch_tokens, settings.max_seqs)
        self._readers = ReadingPool(settings.name, record)
        self._tokenize_worker = TokenizeWorker(settings.name, loaded.model, publish, self._readers, record, inbox.put)
        self._tokenizers = loaded.tokenizers
        self._reading: dict[SequenceId, _PendingRequest] = {}
        self._team = OpenMpTeam()

    def serve(self) -> Stop:
        """Serve until a Stop arrives, and return it."""
        with self._device.joined(self._share, self._record):
            while (stop := self._receive()) is None:
                self._step()
        return stop

    def shutdown(self, stop: Stop) -> None:
        """End all requests: return them if the Stop suspends, else cancel them."""
        self._tokenize_worker.shutdown(stop)
        end = Returned if stop.suspend else Cancelled
        self._end_all([end(request) for request in self._requests()])

    def fail(self) -> None:
        """Return all requests after a failure."""
        self.shutdown(Stop(suspend=True))

    def close(self) -> None:
        """End the threads that read texts; the loaded model frees everything else."""
        # Close the processes first: the threads may be waiting for them.
        self._tokenizers.close()
        self._readers.close()

    def _requests(self) -> list[SequenceId]:
        """The requests that have not ended, in the order of arrival."""
        return sorted((*self._queue.requests, *self._reading))

    def _end_all(self, events: Sequence[Event]) -> None:
        for reading in self._reading.values():
            reading.outcome.cancel()
        self._reading.clear()
        for request in self._queue.requests:
            self._queue.remove(request)
        if events:
            self._publish(events)

    def _receive(self) -> Stop | None:
        """Handle all messages up to a Stop, and return that; block for one only while there is nothing to compute."""
        events: list[Event] = []
        stop: Stop | None = None
        while stop is None:
            waits = not self._queue and not events
            try:
                message = self._inbox.get(block=waits, timeout=self._team.idle_s)
            except Empty:
                if waits:
                    self._team.end()
                break
            if isinstance(message, Stop):
                stop = message
            else:
                self._handle(message, events)
        if events:
            self._publish(events)
        return stop

    def _handle(self, message: LoopMessage, events: list[Event]) -> None:
        match message:
            case Embed() | Rank():
                self._submit(message, events)
            case PromptRead():
                self._read(message, events)
            case Tokenize():
                self._tokenize_worker.submit(message)
            case Cancel(request):
                self._cancel(request, events)
            case Submit(sequence):
                events.append(Failed(sequence, UnsupportedOperation(f"'{self._name}' generates no text.", "model")))
            case Resume(state):
                reason = "it generates no text since it was loaded again"
                events.append(Failed(state.sequence, EngineError(self._name, reason)))
            case SetShare(weight, priority):
                self._device.set_share(self._share, weight, priority)
            case Restore():
                # An engine that pools keeps no prompts.
                pass

    def _cancel(self, request: SequenceId, events: list[Event]) -> None:
        if (reading := self._reading.pop(request, None)) is not None:
            reading.outcome.cancel()
        elif not self._queue.remove(request):
            self._tokenize_worker.cancel(request)
            return
        events.append(Cancelled(request))

    def _submit(self, request: Embed | Rank, events: list[Event]) -> None:
        try:
            read = self._reader_of(request)
        except UnsupportedOperation as refused:
            events.append(Failed(request.sequence, refused))
            return
        outcome = self._readers.submit(
            request.sequence, read, lambda done: self._inbox.put(PromptRead(request.sequence, done))
        )
        self._reading[request.sequence] = _PendingRequest(request, outcome)

    def _read(self, message: PromptRead, events: list[Event]) -> None:
        """Queue the inputs of a request, unless it was cancelled."""
        reading = self._reading.get(message.sequence)
        if reading is None or reading.outcome is not message.outcome:
            return
        del self._reading[message.sequence]
        try:
            inputs = outcome_of(message.outcome, self._name)
            permitted = reading.request.max_context
            if permitted is not None and (longest := max(map(len, inputs), default=0)) > permitted:
                raise ContextNotPermitted(permitted, longest, param="input")
        except ModelyardError as refused:
            events.append(Failed(message.sequence, refused))
            return
        vectors = np.empty((len(inputs), self._context.dimensions), np.float32)
        request = reading.request
        self._queue.add(Job(message.sequence, inputs, request.priority, vectors, alone=request.alone))

    def _reader_of(self, request: Embed | Rank) -> Callable[[], list[list[int]]]:
        """Return the function that reads the inputs of a request, on any thread."""
        match request, self._inputs:
            case Embed(), InputReader() as inputs:
                return partial(inputs.read, request.inputs, truncates=request.truncates)
            case Rank(), PairReader() as pairs:
                return partial(pairs.read, request.query, request.documents, request.max_document_tokens)
            case Embed(), _:
                raise UnsupportedOperation(f"'{self._name}' ranks documents and makes no embeddings.", "model")
            case _:
                raise UnsupportedOperation(f"'{self._name}' makes embeddings and ranks no documents.", "model")

    def _step(self) -> None:
        batch = self._queue.pack()
        if not batch:
            return
        with self._device.step(self._share):
            threads = self._device.threads(self._share)
            self._context.use_threads(threads)
            self._team.use(threads)
            requests = list(dict.fromkeys(entry.job.request for entry in batch))
            self._record.begin_step(requests, sum(len(entry.tokens) for entry in batch))
            vectors = self._context.embed([entry.tokens for entry in batch])
            self._record.end_step()
        complete = self._queue.complete(batch, vectors)
        if complete:
            self._publish([self._answer(job) for job in complete])

    def _answer(self, job: Job) -> Event:
        if not np.isfinite(job.vectors).all():
            # Happens where 16-bit weights overflow.
            return Failed(job.request, EngineError(self._name, "a number that it computed is not finite"))
        if isinstance(self._inputs, PairReader):
            return Ranked(job.request, probabilities(job.vectors), job.tokens)
        return Embedded(job.request, normalised(job.vectors), job.tokens)
