"""Runs what the residency decides: threads, loads, and the events that come back from engines.

Everything here happens on one event loop. Engines are threads; their events arrive in batches, one a step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    SequenceEvent,
    SequenceId,
    Stop,
    Stopped,
    Submit,
    Token,
)
from modelyard.errors import EngineError, ModelyardError
from modelyard.yard import residency
from modelyard.yard.generation import Generation
from modelyard.yard.residency import (
    CloseAsked,
    Complete,
    Effect,
    EngineDied,
    Free,
    Freed,
    Grant,
    LoadFinished,
    Reject,
    ReloadAsked,
    RequestArrived,
    RequestEnded,
    RequestId,
    Residency,
    StartLoad,
    Tick,
    UnloadAsked,
)

logger = logging.getLogger(__name__)

# A thread's last event is its last act; only its exit is waited for.
LAST_MOMENT_S = 1.0


class EngineHandle(Protocol):
    """What the conductor needs of an engine; see ``modelyard.engine.engine.Engine``."""

    def start(self) -> None:
        """Begin to load."""

    def send(self, message: Message) -> None:
        """Hand over a message, without blocking."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; whether it has ended."""


Publish = Callable[[Sequence[Event]], None]

# Finds the files of a model and makes its engine, not yet started.
MakeEngine = Callable[[str, Publish], Awaitable[EngineHandle]]


@dataclass(slots=True)
class _Stream:
    """One request on its way: waiting for a lease (no engine), or in an engine."""

    model: str
    submit: Submit
    generation: Generation
    engine: EngineHandle | None = None


class Conductor:
    """Owns the engines and the requests in them.

    Args:
        models: ids of all models.
        make_engine: makes the engine of one; its errors fail the load, with their text as the reason.
        most_requests: that one model may be serving or have waiting; the next gets QueueFull.
    """

    def __init__(self, models: Iterable[str], make_engine: MakeEngine, most_requests: int) -> None:
        self.state = Residency.of(models, most_requests)
        self.profiles: dict[str, ModelProfile] = {}
        self.load_progress: dict[str, float] = {}
        self._make_engine = make_engine
        self._loop = asyncio.get_running_loop()
        self._engines: dict[str, EngineHandle] = {}
        self._streams: dict[RequestId, _Stream] = {}
        self._callers: dict[RequestId, asyncio.Future[None]] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._events: deque[residency.Event] = deque()
        self._is_running_effects = False
        self._requests = 0
        self._all_freed = asyncio.Event()

    # What callers ask for

    def submit(self, model: str, submit: Callable[[SequenceId], Submit]) -> tuple[RequestId, Generation]:
        """Put a request in line for ``model``. Its generation hears of everything that happens to it."""
        request = self._next_request()
        generation = Generation(model)
        self._streams[request] = _Stream(model, submit(SequenceId(request)), generation)
        self._feed(RequestArrived(model, request))
        return request, generation

    def abandon(self, request: RequestId) -> None:
        """Nobody wants the answer any more: leave the line, or end the sequence before its engine's next step."""
        stream = self._streams.get(request)
        if stream is None:
            return
        if stream.engine is None:
            del self._streams[request]
            self._feed(RequestEnded(stream.model, request))
        else:
            stream.engine.send(Cancel(stream.submit.sequence))

    async def unload(self, model: str) -> None:
        """Free ``model`` when its running requests have ended; return when its memory is free."""
        await self._ask(model, UnloadAsked)

    async def reload(self, model: str) -> None:
        """Have ``model`` loaded; return when it serves.

        Raises:
            ModelLoadFailed: it could not be loaded.
        """
        await self._ask(model, ReloadAsked)

    async def close(self, timeout_s: float) -> bool:
        """End all requests and free all models; whether that was done within ``timeout_s``."""
        self._feed(CloseAsked())
        self._note_freed()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_freed.wait()
        except TimeoutError:
            # An engine hangs. Nobody is left waiting for it.
            for stream in list(self._streams.values()):
                self._end(Cancelled(stream.submit.sequence))
            return False
        return True

    async def _ask(self, model: str, event: type[UnloadAsked | ReloadAsked]) -> None:
        request = self._next_request()
        caller = self._callers[request] = self._loop.create_future()
        self._feed(event(model, request))
        try:
            await caller
        finally:
            self._callers.pop(request, None)

    def _next_request(self) -> RequestId:
        self._requests += 1
        return RequestId(self._requests)

    # Events in, effects out

    def _feed(self, event: residency.Event) -> None:
        """Advance the state and run the effects. Events that effects cause are taken in order, after them."""
        self._events.append(event)
        if self._is_running_effects:
            return
        self._is_running_effects = True
        try:
            while self._events:
                self.state, _ = residency.step(self.state, Tick(time.monotonic()))
                self.state, effects = residency.step(self.state, self._events.popleft())
                for effect in effects:
                    self._run(effect)
        finally:
            self._is_running_effects = False

    def _run(self, effect: Effect) -> None:
        match effect:
            case Grant(model, request):
                stream = self._streams[request]
                stream.engine = self._engines[model]
                stream.generation.fingerprint = self.profiles[model].fingerprint
                stream.engine.send(stream.submit)
            case Reject(_, request, error):
                self._reject(request, error)
            case Complete(_, request):
                caller = self._callers.get(request)
                if caller is not None and not caller.done():
                    caller.set_result(None)
            case StartLoad(model):
                self.load_progress[model] = 0.0
                self._loads[model] = self._loop.create_task(self._load(model), name=f"load {model}")
            case Free(model):
                self._free(model)

    def _reject(self, request: RequestId, error: ModelyardError) -> None:
        stream = self._streams.pop(request, None)
        if stream is not None:
            stream.generation.put(Failed(stream.submit.sequence, error))
        caller = self._callers.get(request)
        if caller is not None and not caller.done():
            caller.set_exception(error)

    async def _load(self, model: str) -> None:
        try:
            engine = await self._make_engine(model, lambda events: self._publish(model, events))
            engine.start()
        except ModelyardError as error:
            self._feed(residency.LoadFailed(model, str(error)))
            return
        except Exception as failure:
            # A load that ends without an outcome would leave its callers waiting for ever.
            logger.exception("The load of %s failed", model)
            reason = f"an internal error ({type(failure).__name__}); the server's log has the details"
            self._feed(residency.LoadFailed(model, reason))
            return
        finally:
            self._loads.pop(model, None)
        # Not too late for its first events: they come through the event loop.
        self._engines[model] = engine

    def _free(self, model: str) -> None:
        engine = self._engines.get(model)
        if engine is not None:
            engine.send(Stop())
            return
        load = self._loads.pop(model, None)
        if load is not None:
            load.cancel()
        self._feed(Freed(model))
        self._note_freed()

    # Events from engines

    def _publish(self, model: str, events: Sequence[Event]) -> None:
        """Called on an engine's thread: one hop to the event loop for all events of a step."""
        try:
            self._loop.call_soon_threadsafe(self._receive, model, events)
        except RuntimeError:
            # The event loop is closed: nobody is left to hear of it.
            logger.debug("Events of %s came after the end", model)

    def _receive(self, model: str, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Token() | Accepted():
                    stream = self._streams.get(RequestId(event.sequence))
                    if stream is not None:
                        stream.generation.put(event)
                case Finished() | Failed() | Cancelled():
                    self._end(event)
                case LoadProgress(fraction):
                    self.load_progress[model] = fraction
                case Loaded(profile):
                    self.profiles[model] = profile
                    self._feed(LoadFinished(model))
                case LoadFailed(reason):
                    self._forget_engine(model)
                    self._feed(residency.LoadFailed(model, reason))
                case Died(reason):
                    self._forget_engine(model, reason)
                    self._feed(EngineDied(model, reason))
                case Stopped():
                    self._forget_engine(model)
                    self._feed(Freed(model))
        self._note_freed()

    def _end(self, event: SequenceEvent) -> None:
        stream = self._streams.pop(RequestId(event.sequence), None)
        if stream is None:
            # A close that gave up on the engine has ended it already.
            return
        stream.generation.put(event)
        self._feed(RequestEnded(stream.model, RequestId(event.sequence)))

    def _forget_engine(self, model: str, reason: str = "it was stopped") -> None:
        """The engine is gone. Requests that were handed to it too late to be heard of end here."""
        engine = self._engines[model]
        unheard = [stream for stream in self._streams.values() if stream.engine is engine]
        for stream in unheard:
            self._end(Failed(stream.submit.sequence, EngineError(model, reason)))
        # Not before: the last end of a drain frees the model, which without an engine would be done at once, and the
        # next load begun before the residency has heard how this engine ended.
        del self._engines[model]
        if not engine.join(LAST_MOMENT_S):
            logger.warning("The thread of %s's engine goes on after its last event", model)

    def _note_freed(self) -> None:
        if self.state.is_closing and not self._engines and not self._loads:
            self._all_freed.set()
