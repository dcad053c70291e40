"""Runs the effects of the residency, and feeds their outcomes back to it. Everything runs on one event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from modelyard.errors import QueueFull
from modelyard.hub.sources.listing import Progress
from modelyard.protocol.events import Event
from modelyard.protocol.messages import Request, Resume
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.requests import Embed, Rank, RefuseGrowth, Resize, SetAdapters, SetShare, Stop, Submit, Tokenize
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId
from modelyard.system.owner_shares import may_take
from modelyard.yard import residency
from modelyard.yard.requests.content import content_of
from modelyard.yard.requests.one_shot import PendingResult
from modelyard.yard.requests.requests import WaitOptions
from modelyard.yard.requests.token_estimate import cells_needed
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.residency import effects, events
from modelyard.yard.residency.state import LoadState, Residency
from modelyard.yard.residency.waiting import RequestId, UnloadMode
from modelyard.yard.runtime.adapter_files import AdapterFiles
from modelyard.yard.runtime.engine_reports import EngineReports
from modelyard.yard.runtime.engine_supervisor import EngineSupervisor
from modelyard.yard.runtime.inflight import InflightRequests, RunningAnswer
from modelyard.yard.runtime.interfaces import EngineSource
from modelyard.yard.runtime.operation_callers import OperationCallers
from modelyard.yard.stats import log_lines
from modelyard.yard.stats.counters import Counters
from modelyard.yard.stats.log_lines import is_waiting
from modelyard.yard.stats.recorder import Recorder
from modelyard.yard.stats.status_broadcaster import StatusBroadcaster

logger = logging.getLogger(__name__)


class LifecycleController:
    """Connects callers, the residency and the models' engines: it turns calls and engine events into residency events.

    Args:
        state: all models, unloaded.
        factory: sizes models and makes their engines.
        on_removed: called with the name of a retired model once it is removed.
        refresh_devices: returns once it was looked which devices there are, and the state has their budgets; None:
            there are none.

    Attributes:
        state: the state of the residency.
        profiles: what the engines reported of their models, by model; from the first load on.
        load_progress: part of the weights that is read, by model.
        watch: publishes changes to observers.
        recorder: keeps what happened to requests and models.
        counters: counts and histograms of each model.
        closing: set once it closes.
    """

    def __init__(
        self,
        state: Residency,
        factory: EngineSource,
        on_removed: Callable[[str], None] | None = None,
        refresh_devices: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.state = state._replace(now=time.monotonic())
        self.watch = StatusBroadcaster()
        self.recorder = Recorder()
        self.counters = Counters()
        self.closing = asyncio.Event()
        self._on_removed = on_removed
        self._loop = asyncio.get_running_loop()
        self._refresh_devices = refresh_devices
        self._engines = EngineSupervisor(factory, self._receive, self._conclude, self._devices_of)
        self._inflight = InflightRequests(
            self.counters, self.feed, lambda: self.state.is_closing, self.recorder.requests
        )
        self._reports = EngineReports(
            self._engines, self._inflight, self.counters, self.watch, lambda: self.state, self.feed
        )
        self.profiles: Mapping[str, ModelProfile] = self._reports.profiles
        self.load_progress: Mapping[str, float] = self._reports.load_progress
        self._callers = OperationCallers()
        self._events: deque[events.ResidencyEvent] = deque()
        self._is_running_effects = False
        # Models whose wait for memory is in the log.
        self._reported_waits: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._requests = 0
        self._all_freed = asyncio.Event()

    # Calls

    def submit(
        self,
        model: str,
        make_message: Callable[[SequenceId], Submit],
        wait_options: WaitOptions | None = None,
        owner: Hashable = None,
        *,
        leaves_hold: bool = False,
        continues: RequestId | None = None,
    ) -> tuple[RequestId, TokenStream]:
        """Queue a request for ``model``; its number and the stream of its answer.

        Args:
            model: its name in the residency.
            make_message: makes the message for the engine from the number of the request.
            wait_options: how it waits for its model.
            owner: whose places in the queue it takes, where several owners share them; None: places are not shared out.
            leaves_hold: whether the answer may go on with another request; then ``release_hold`` must be called, unless
                that request is submitted or this one fails.
            continues: the request of the same answer before this one, which has left a hold; None: there is none.
        """
        generation = TokenStream(self.state.models[model].policy.name)
        number = self._enqueue(
            model, make_message, generation, wait_options, owner, leaves_hold=leaves_hold, continues=continues
        )
        return number, generation

    def release_hold(self, model: str, request: RequestId) -> None:
        """End the hold that ``request`` has left on ``model``, because its answer is over."""
        self.feed(events.HoldReleased(model, request))

    def submit_one_shot(
        self,
        model: str,
        make_message: Callable[[SequenceId], Embed | Rank | Tokenize],
        wait_options: WaitOptions | None = None,
        owner: Hashable = None,
    ) -> tuple[RequestId, PendingResult]:
        """Queue a request that is answered at once, as ``submit`` does; its number and its result."""
        pending = PendingResult(self.state.models[model].policy.name)
        return self._enqueue(model, make_message, pending, wait_options, owner), pending

    def relay(
        self,
        model: str,
        message: Request,
        result: TokenStream | PendingResult,
        wait_options: WaitOptions | None = None,
    ) -> RequestId:
        """Queue a request that another yard has taken, or begun: ``result`` gets its events. Return its number.

        Args:
            model: its name in the residency.
            message: the request, with the number that it has there.
            result: what its events are put into.
            wait_options: how it waits for its model.
        """
        goes_on = message.state if isinstance(message, Resume) else None
        request = message.state.request if isinstance(message, Resume) else message
        return self._enqueue(
            model,
            lambda sequence: replace(request, sequence=sequence),
            result,
            wait_options,
            None,
            goes_on=goes_on,
        )

    def _enqueue(
        self,
        model: str,
        make_message: Callable[[SequenceId], Submit | Embed | Rank | Tokenize],
        result: TokenStream | PendingResult,
        wait_options: WaitOptions | None,
        owner: Hashable,
        *,
        leaves_hold: bool = False,
        continues: RequestId | None = None,
        goes_on: SuspendedSequence | None = None,
    ) -> RequestId:
        request = self._next_request()
        wait = wait_options or WaitOptions()
        message = make_message(SequenceId(request))
        own, total = self._inflight.held_by(model, owner)
        if goes_on is not None:
            assert isinstance(message, Submit), "only texts are suspended"
            goes_on = replace(goes_on, request=message)
        self._inflight.add(request, model, message, result, owner, leaves_hold=leaves_hold, suspended=goes_on)
        if (
            owner is not None
            and continues is None
            and not may_take(own, total, self.state.models[model].policy.max_requests)
        ):
            self._inflight.reject(request, QueueFull(self.state.display_name(model), own, of_key=True))
            return request
        # The digest is computed only while some content is refused, because it takes time for long prompts.
        content = content_of(self.state.display_name(model), message) if self.state.poison else ""
        # A long conversation takes milliseconds to count, and the engine of a loaded model asks for what it needs.
        is_loaded = self.state.models[model].load_state is LoadState.LOADED
        self.feed(
            events.RequestArrived(
                model,
                request,
                wait.priority,
                wait.wait_s,
                wait.keep_alive_s,
                content,
                continues,
                0 if is_loaded else cells_needed(message, goes_on),
            )
        )
        return request

    def abandon(self, request: RequestId) -> None:
        """Cancel a request: it leaves the queue, or its sequence ends before its engine's next step."""
        self._inflight.abandon(request)

    def running(self) -> list[RunningAnswer]:
        """Return the requests that are not over."""
        return self._inflight.running()

    def set_share(self, model: str, weight: float, priority: int) -> None:
        """Change the share of device time of the engine of ``model``, if it has one."""
        engine = self._engines.engines.get(model)
        if engine is not None:
            engine.send(SetShare(weight, priority))

    def set_adapters(self, model: str, adapters: AdapterFiles | None, added_bytes: int) -> None:
        """Give ``model`` other adapters, by which it takes ``added_bytes`` more; None: it has no engine."""
        self.feed(events.AdaptersChanged(model, added_bytes))
        engine = self._engines.engines.get(model)
        if engine is not None and adapters is not None:
            engine.send(SetAdapters(adapters.files))

    def unload(self, model: str, mode: UnloadMode) -> asyncio.Future[None]:
        """Free ``model``; the future is done when its memory is free.

        It fails with ModelBusy where the requests of the model did not end in time.
        """
        return self._request_operation(lambda request: events.UnloadAsked(model, request, mode))

    def reload(self, model: str) -> asyncio.Future[None]:
        """Load ``model``; the future is done when it serves.

        It fails with ModelLoadFailed, InsufficientMemory, or ModelLoading where the load took too long.
        """
        return self._request_operation(lambda request: events.ReloadAsked(model, request))

    async def close(self, timeout_s: float) -> bool:
        """End all requests and free all models; return whether that was done within ``timeout_s``."""
        self.closing.set()
        self.feed(events.CloseAsked())
        self._note_freed()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_freed.wait()
        except TimeoutError:
            # An engine hangs: its requests end without it.
            self._inflight.cancel_all()
            return False
        finally:
            self._set_timer(math.inf)
            self.watch.close()
        return True

    def _request_operation(self, event: Callable[[RequestId], events.ResidencyEvent]) -> asyncio.Future[None]:
        request = self._next_request()
        caller = self._callers.add(request)
        self.feed(event(request))
        return caller

    def _next_request(self) -> RequestId:
        self._requests += 1
        return RequestId(self._requests)

    # Events in, effects out

    def feed(self, event: events.ResidencyEvent) -> None:
        """Advance the state and run the effects. Events that effects cause are handled in order, after them."""
        self._events.append(event)
        if self._is_running_effects:
            return
        self._is_running_effects = True
        try:
            while self._events:
                before = self.state
                self.state, due = residency.advance_clock(before, time.monotonic())
                event = self._events.popleft()
                self.state, caused = residency.step(self.state, event)
                self.watch.compare(before, self.state)
                self.recorder.record(before, self.state, event, (*due, *caused))
                for effect in (*due, *caused):
                    self._run(effect)
        finally:
            self._is_running_effects = False
            self._set_timer(self.state.due_at)
        self.recorder.explain_waits(self.state)
        self._note_waits()

    def _note_waits(self) -> None:
        """Log which models begin to wait for memory that others use, once for each wait, and read their files ahead."""
        models = self.state.models
        self._reported_waits = {name for name in self._reported_waits if name in models and is_waiting(models[name])}
        for name, line in log_lines.waits(self.state, self._reported_waits).items():
            self._reported_waits.add(name)
            logger.info("%s", line)
            self._engines.read_ahead(name)

    def _set_timer(self, due_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_at < math.inf:
            delay_s = max(0.0, due_at - time.monotonic())
            self._timer = self._loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self.feed(events.Tick(time.monotonic()))

    def _run(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Grant(model, request, alone):
                engine, fingerprint = self._engines.engines[model], self.profiles[model].fingerprint
                self.counters[self.state.display_name(model)].retried_alone += alone
                self._inflight.grant(request, engine, self.state.models[model], fingerprint, alone=alone)
            case effects.Reject(_, request, error):
                self._inflight.reject(request, error)
                self._callers.fail(request, error)
            case effects.Blame(model, request, error):
                logger.warning("Request %s of %s is to blame: %s", request, self.state.display_name(model), error)
                self.counters[self.state.display_name(model)].blamed += 1
                self._inflight.reject(request, error)
            case effects.Abort(_, request, error):
                self._inflight.reject(request, error)
            case effects.Complete(_, request):
                self._callers.complete(request)
            case effects.ComputeFootprint(model):
                self._engines.size(model)
            case effects.StartLoad(model, placement, cells):
                self._reports.load_progress[model] = 0.0
                footprint = self.state.models[model].footprint
                predicted_bytes = None if footprint is None else footprint.total_bytes
                self.counters[self.state.display_name(model)].predicted_bytes = predicted_bytes
                logger.info("%s", log_lines.loading(self.state, model))
                self._engines.load(model, placement, cells)
            case effects.Resize(model, sizes, keep_bytes):
                logger.debug("The context of %s is to have %s cells", self.state.display_name(model), sizes)
                self._engines.engines[model].send(Resize(sizes, keep_bytes))
            case effects.RefuseGrowth(model, error):
                logger.warning("The context of %s cannot grow: %s", self.state.display_name(model), error)
                self._engines.engines[model].send(RefuseGrowth(error))
            case effects.Free(model, suspends, keep_bytes, _, keeps_weights, reason):
                logger.info("%s", log_lines.freeing(self.state, effect))
                self.counters[self.state.display_name(model)].unloads[reason] += 1
                self._engines.free(model, Stop(suspends, keep_bytes, keeps_weights, discard=reason == "changed"))
            case effects.DiscardKept(model):
                self._engines.discard_kept(model)
                self._inflight.discard_kv_of(model)
            case effects.Remove(model):
                self._reports.discard(model)
                if self._on_removed is not None:
                    self._on_removed(model)

    def _conclude(self, event: events.ResidencyEvent) -> None:
        """Take the outcome for a model that the supervisor reports."""
        self._reports.conclude(event)
        self._note_freed()

    def _devices_of(self, model: str) -> Callable[[], Awaitable[bool]] | None:
        """Return a function that checks whether a device of ``model`` is gone; None where it is on the host alone."""
        state = self.state.models.get(model)
        if self._refresh_devices is None or state is None or state.footprint is None or not state.footprint.devices:
            return None
        return partial(self._are_gone, {share.pool for share in state.footprint.devices}, self._refresh_devices)

    async def _are_gone(self, pools: set[str], refresh: Callable[[], Awaitable[None]]) -> bool:
        await refresh()
        return not pools <= self.state.device_budgets.keys()

    def preparing(self, model: str, progress: Progress) -> None:
        """Report the progress of preparing the files of ``model``. May be called on any thread."""
        self._loop.call_soon_threadsafe(self._report_preparing, model, progress)

    def _report_preparing(self, model: str, progress: Progress) -> None:
        if model in self.state.models:
            self.watch.preparing(self.state.models[model].policy.name, progress)

    def prepared(self, model: str) -> None:
        """Report that files are not prepared any longer for a caller that waited for nothing else."""
        if model in self.state.models:
            self.watch.prepared(self.state.models[model])

    def _receive(self, model: str, batch: Sequence[Event]) -> None:
        self._reports.receive(model, batch)
        self._note_freed()

    def _note_freed(self) -> None:
        if self.state.is_closing and self._engines.is_empty:
            self._all_freed.set()
