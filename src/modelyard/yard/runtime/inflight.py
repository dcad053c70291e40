"""The requests that are not over: their way through engines, and the way of engine events to their readers.

Hot path: ``receive`` runs once a step, and its loop once a token.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from modelyard.errors import EngineError, ModelUnloaded, ModelyardError
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Embedded,
    EngineEvent,
    Event,
    Failed,
    Finished,
    PromptProgress,
    PromptScored,
    Ranked,
    Returned,
    Started,
    Suspended,
    Token,
    Tokenized,
)
from modelyard.protocol.messages import Resume
from modelyard.protocol.requests import Cancel, Embed, Rank, Submit, Tokenize
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import Usage
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.requests.one_shot import PendingResult
from modelyard.yard.requests.token_estimate import cells_needed
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.residency import events
from modelyard.yard.residency.state import ModelState
from modelyard.yard.residency.waiting import RequestId
from modelyard.yard.runtime.interfaces import EngineHandle
from modelyard.yard.stats.counters import Counters, Ending
from modelyard.yard.stats.request_log import RequestKind, RequestLog
from modelyard.yard.stats.request_phases import Step

_KINDS: Final[Mapping[type, RequestKind]] = {Submit: "text", Embed: "vectors", Rank: "scores", Tokenize: "tokens"}


@dataclass(slots=True)
class InflightRequest:
    """One request that is not over: waiting for a lease, which is the permission to run in the engine of its model; in
    an engine, or suspended between two.

    Attributes:
        model: its model's name in the residency.
        submit: the message that its engine is sent.
        result: what its reader reads.
        engine: the engine that has it; None while it waits.
        suspended: the state that it goes on from; None where it begins.
        resumed: the state that its engine was sent, without its KV, in case the engine dies before it receives it.
        last_token_at: when its last token had arrived by then.
        is_abandoned: whether its reader has left.
        owner: whose places in the queue it takes; None where owners are not told apart.
        leaves_hold: whether its answer may go on with another request, which keeps the model in use until then.
    """

    model: str
    submit: Submit | Embed | Rank | Tokenize
    result: TokenStream | PendingResult
    engine: EngineHandle | None = None
    suspended: SuspendedSequence | None = None
    resumed: SuspendedSequence | None = None
    last_token_at: float = 0.0
    is_abandoned: bool = False
    owner: Hashable = None
    leaves_hold: bool = False

    @property
    def usage(self) -> Usage | None:
        """What it has used so far, while it is suspended; None where it has not begun, or an engine has it."""
        return self.suspended.usage if isinstance(self.suspended, SuspendedSequence) else None


@dataclass(frozen=True, slots=True)
class RunningAnswer:
    """A request that is not over, for those who wait for it.

    Attributes:
        model: id of its model.
        tokens: how many tokens of its answer have arrived.
        is_waiting: whether no engine has it.
    """

    model: str
    tokens: int
    is_waiting: bool


class InflightRequests:
    """All requests that are not over.

    Args:
        counters: count how they end.
        feed: takes the residency's events RequestEnded, RequestSuspended and RequestCleared.
        is_closing: whether the yard closes. Otherwise a cancelled request was ended by a forced unload.
        log: records the way of each request.

    Attributes:
        open: the requests by number.
    """

    def __init__(
        self,
        counters: Counters,
        feed: Callable[[events.ResidencyEvent], None],
        is_closing: Callable[[], bool],
        log: RequestLog,
    ) -> None:
        self.open: dict[RequestId, InflightRequest] = {}
        self._counters = counters
        self._feed = feed
        self._is_closing = is_closing
        self._log = log
        self._loop = asyncio.get_running_loop()
        # Streams with new text whose readers are not woken yet, as an ordered set.
        self._published: dict[TokenStream, None] = {}
        self._is_waking = False
        # Requests that engines compute alone, until they have a token.
        self._alone: set[RequestId] = set()
        # Requests that are not over, by model and owner.
        self._held: dict[str, Counter[Hashable]] = defaultdict(Counter)

    def add(
        self,
        request: RequestId,
        model: str,
        submit: Submit | Embed | Rank | Tokenize,
        result: TokenStream | PendingResult,
        owner: Hashable = None,
        *,
        leaves_hold: bool = False,
        suspended: SuspendedSequence | None = None,
    ) -> None:
        """Add a request that has arrived, and waits for a lease; with ``suspended`` it goes on from there."""
        result.times.arrived = time.monotonic()
        self.open[request] = InflightRequest(
            model, submit, result, suspended=suspended, owner=owner, leaves_hold=leaves_hold
        )
        self._held[model][owner] += 1
        self._log.begin(request, _KINDS[type(submit)], result)

    def held_by(self, model: str, owner: Hashable) -> tuple[int, int]:
        """Return how many requests for ``model`` are not over: those of ``owner``, and all."""
        held = self._held.get(model, Counter[Hashable]())
        return held[owner], held.total()

    def abandon(self, request: RequestId) -> None:
        """Cancel a request: it leaves the queue, or its sequence ends before its engine's next step."""
        inflight = self.open.get(request)
        if inflight is None:
            return
        if inflight.engine is None:
            del self.open[request]
            self._finish(inflight, Cancelled(inflight.submit.sequence, inflight.usage))
            self._feed(events.RequestEnded(inflight.model, request))
        else:
            inflight.is_abandoned = True
            inflight.engine.send(Cancel(inflight.submit.sequence))

    def grant(
        self, request: RequestId, engine: EngineHandle, state: ModelState, fingerprint: str, *, alone: bool
    ) -> None:
        """Send a request to the engine of its model, from its beginning or from where it was suspended.

        Args:
            request: its number.
            engine: the engine of its model.
            state: the state of its model.
            fingerprint: of the model and the backend.
            alone: whether it is computed in steps of its own until its first token.
        """
        if alone:
            self._alone.add(request)
        inflight = self.open[request]
        inflight.engine = engine
        now = time.monotonic()
        inflight.result.times.grant(now, state.load_began, state.loaded_at)
        self._log.step(request, Step(now, is_granted=True))
        if inflight.suspended is None:
            if isinstance(inflight.result, TokenStream):
                inflight.result.fingerprint = fingerprint
            engine.send(replace(inflight.submit, alone=True) if alone else inflight.submit)
        else:
            engine.send(Resume(inflight.suspended, alone))
            inflight.resumed, inflight.last_token_at = inflight.suspended.without_kv(), inflight.result.times.last
            inflight.suspended = None

    def reject(self, request: RequestId, error: ModelyardError) -> None:
        """End a request that waits, or that cannot go on: it is blamed for a death, or its model's file changed."""
        inflight = self.open.pop(request, None)
        if inflight is not None:
            sequence = inflight.submit.sequence
            usage = inflight.usage
            ending = Cancelled(sequence, usage) if inflight.is_abandoned else Failed(sequence, error, usage)
            self._finish(inflight, ending)

    def discard_kv_of(self, model: str) -> None:
        """Discard the KV state of suspended requests for ``model``: it is computed again."""
        for inflight in self.open.values():
            if inflight.model == model and inflight.suspended is not None:
                inflight.suspended = inflight.suspended.without_kv()

    def lose(self, engine: EngineHandle, reason: str) -> None:
        """Take requests back from an engine that is gone: those that reached it too late to be processed wait again."""
        unfinished = [(request, inflight) for request, inflight in self.open.items() if inflight.engine is engine]
        for request, inflight in unfinished:
            result = inflight.result
            is_settled = isinstance(result, TokenStream) and result.is_settled
            if is_settled and (inflight.resumed is None or result.times.last != inflight.last_token_at):
                # The engine has begun it and published no end, so the point where its answer goes on is not known.
                self._end(Failed(inflight.submit.sequence, EngineError(result.model, reason)))
            else:
                self._suspend(request, inflight.resumed)

    def running(self) -> list[RunningAnswer]:
        """Return the answers whose readers are still there, in the order in which they arrived."""
        return [
            RunningAnswer(
                inflight.result.model,
                inflight.result.generated if isinstance(inflight.result, TokenStream) else 0,
                inflight.engine is None,
            )
            for inflight in self.open.values()
            if not inflight.is_abandoned
        ]

    def cancel_all(self) -> None:
        """End all requests, without waiting for their engines."""
        for inflight in list(self.open.values()):
            self._end(Cancelled(inflight.submit.sequence))

    def receive(self, name: ModelId, batch: Sequence[Event], now: float) -> Iterator[EngineEvent]:
        """Pass the events of requests on to their readers.

        Args:
            name: id of the engine's model.
            batch: the events that the engine has published with one step.
            now: when they arrived.

        Yields:
            The events of the engine itself. Each must be handled before the next one is requested, to keep the order.
        """
        last_times: list[float] = []
        if self._alone:
            self._clear(batch)
        # Nearly all events are tokens.
        for event in batch:
            if isinstance(event, Token):
                inflight = self.open.get(RequestId(event.sequence))
                if inflight is not None:
                    generation = inflight.result
                    assert isinstance(generation, TokenStream)
                    generation.add(event)
                    self._published[generation] = None
                    times = generation.times
                    # The echo of a prompt, which has no ids, may come before the prompt is computed.
                    if not times.last or (event.ids and generation.generated == len(event.ids)):
                        times.first = now
                    last_times.append(times.last)
                    times.last = now
                continue
            match event:
                case Accepted(sequence) | PromptProgress(sequence) | PromptScored(sequence):
                    inflight = self.open.get(RequestId(sequence))
                    if inflight is not None:
                        inflight.result.put(event)
                case Started(sequence, cached_tokens):
                    inflight = self.open.get(RequestId(sequence))
                    if inflight is not None:
                        inflight.result.times.start(now)
                        if isinstance(inflight.result, TokenStream):
                            inflight.result.cached_tokens = cached_tokens
                case Finished() | Embedded() | Ranked() | Tokenized() | Failed() | Cancelled():
                    self._end(event)
                case Suspended(sequence, suspended):
                    self._suspend(RequestId(sequence), suspended)
                case Returned(sequence):
                    self._suspend(RequestId(sequence), None)
                case _:
                    yield event
        if last_times:
            self._counters[name].record_tokens(last_times, now)
        if self._published and not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake_readers)

    def _clear(self, batch: Sequence[Event]) -> None:
        """Clear the suspects that have a token now."""
        for event in batch:
            # The echo of a prompt is an event without token ids, published before anything is computed.
            if isinstance(event, Token) and event.ids and RequestId(event.sequence) in self._alone:
                request = RequestId(event.sequence)
                self._alone.discard(request)
                self._feed(events.RequestCleared(self.open[request].model, request))

    def _wake_readers(self) -> None:
        """Wake the readers, once for all steps that have arrived: engines may outrun the event loop."""
        published, self._published, self._is_waking = self._published, {}, False
        for generation in published:
            generation.wake()

    def _suspend(self, request: RequestId, suspended: SuspendedSequence | None) -> None:
        """Have the request wait for its model again, to go on from ``suspended``, or to begin where that is None."""
        inflight = self.open.get(request)
        if inflight is None:
            return
        if inflight.is_abandoned:
            self._end(Cancelled(inflight.submit.sequence))
            return
        self._alone.discard(request)
        inflight.engine, inflight.suspended, inflight.resumed = None, suspended, None
        now = time.monotonic()
        inflight.result.times.pause(now)
        self._log.step(request, Step(now, kind="suspended", text="The request is suspended: its model makes room"))
        kept_bytes = 0 if suspended is None else suspended.size_bytes
        cells = cells_needed(inflight.submit, suspended)
        self._feed(events.RequestSuspended(inflight.model, request, kept_bytes, cells))

    def _finish(self, inflight: InflightRequest, event: Ending) -> None:
        """Count the last event of a request, and pass it to the reader."""
        result = inflight.result
        result.times.end(time.monotonic())
        self._alone.discard(RequestId(inflight.submit.sequence))
        self._release(inflight)
        self._counters[result.model].record_end(event, result.times)
        self._log.end(RequestId(inflight.submit.sequence), event)
        result.put(event)

    def _release(self, inflight: InflightRequest) -> None:
        """Free the place that the request takes for its owner."""
        held = self._held[inflight.model]
        held[inflight.owner] -= 1
        if not held[inflight.owner]:
            del held[inflight.owner]
        if not held:
            del self._held[inflight.model]

    def _end(self, event: Ending) -> None:
        inflight = self.open.pop(RequestId(event.sequence), None)
        if inflight is None:
            # A close that gave up on the engine has ended it already.
            return
        if isinstance(event, Cancelled) and not inflight.is_abandoned and not self._is_closing():
            # Its model is unloaded by force.
            event = Failed(event.sequence, ModelUnloaded(inflight.result.model), event.usage)
        self._finish(inflight, event)
        # Also where it was refused: the next round may be a shorter prompt.
        leaves_hold = inflight.leaves_hold and not inflight.is_abandoned
        self._feed(events.RequestEnded(inflight.model, RequestId(event.sequence), leaves_hold))
