"""A node: a yard that answers the requests of fronts, and reports to them what it has and does.

What a front sends and receives are tuples whose first item names them:

    front to node   ("request", model, message, wait_s, keep_alive_s)   ("cancel", sequence)
                    ("ask", number, what, args)
    node to front   ("report", fields)   ("events", events, identities)   ("answer", number, error or None, value)

Events are sent together once a turn of the event loop, so that a step of an engine is one frame.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from modelyard.cluster.node_report import NodeReport, mean_service_s, report_of
from modelyard.cluster.node_tasks import run_task
from modelyard.cluster.relays import RelayedResult, RelayedStream
from modelyard.cluster.scaling import FirstTokens, NodeLoad, load_of
from modelyard.cluster.wire import GREETING_S, Wire, WireClosed, accept
from modelyard.config.adapter import SEPARATOR
from modelyard.errors import ModelNotFound, ModelyardError, ShuttingDown
from modelyard.protocol.events import Accepted, Ending, Failed, SequenceEvent, Token
from modelyard.protocol.messages import Resume
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.yard.requests.model_names import ModelId, ResidencyName
from modelyard.yard.requests.requests import WaitOptions
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.residency.waiting import RequestId
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

REPORT_S: Final = 0.5
"""Seconds between two reports."""


class NodeServer:
    """Serves the models of a yard to fronts. Use it on the yard's event loop.

    Args:
        yard: the models; started.
        name: the node's name in the cluster.
        secret: what fronts must know.

    Attributes:
        is_draining: whether it takes no further requests.
        service_s: seconds that answers took lately.
        request_ended: set when a request is over.
    """

    def __init__(self, yard: Yard, name: str, secret: str) -> None:
        self.yard, self.name, self._secret = yard, name, secret
        self._fronts: set[_Front] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.is_draining = False
        self.service_s = 1.0
        self._first_tokens = FirstTokens()
        self.request_ended = asyncio.Event()

    async def start(self, host: str) -> int:
        """Listen on a free port of ``host``, and return it."""
        self._server = await asyncio.start_server(self._on_connection, host, 0)
        return int(self._server.sockets[0].getsockname()[1])

    def report(self) -> NodeReport:
        """Return what the node reports now."""
        return report_of(
            self.name,
            self.yard.controller.state,
            time.monotonic(),
            self.yard.config.runtime.max_seqs,
            self.service_s,
            is_draining=self.is_draining,
        )

    def load(self) -> NodeLoad:
        """Return what the node has to do now, by which nodes join and leave."""
        now, state = time.monotonic(), self.yard.controller.state
        # Loads do not count: another node would have to load the model, too.
        late = [
            now - max(known.times.arrived, model.loaded_at)
            for front in self._fronts
            for known in front.open.values()
            if not known.times.first and (model := state.models.get(known.model)) is not None
        ]
        first_token_s = self._first_tokens.mean_s(now, late)
        return load_of(state, now, self.yard.config.runtime.max_seqs, first_token_s)

    def note_end(self, times: RequestTimings, now: float) -> None:
        """Note the times of a request that is over."""
        if times.granted:
            self.service_s = mean_service_s(self.service_s, [now - (times.started or times.granted)])
        if times.first and times.queue_s is not None and times.prefill_s is not None:
            self._first_tokens.note(times.queue_s + times.prefill_s, now)
        self.request_ended.set()

    @property
    def open_requests(self) -> int:
        """Number of requests that are not over."""
        return sum(len(front.open) for front in self._fronts)

    async def drain(self, timeout_s: float) -> None:
        """Take no further requests, and return when those that run are over, at the latest after ``timeout_s``."""
        self.is_draining = True
        for front in list(self._fronts):
            front.report()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._until_idle()

    async def _until_idle(self) -> None:
        while self.open_requests:
            self.request_ended.clear()
            await self.request_ended.wait()

    async def close(self) -> None:
        """End all connections: what still runs goes on elsewhere, from what its front has received."""
        if self._server is not None:
            self._server.close()
        for front in list(self._fronts):
            await front.close()
        # Not cancelled: asyncio logs the tasks of connections that are.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * GREETING_S)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            wire = await accept(reader, writer, self._secret)
        except WireClosed as refused:
            logger.warning("A connection was refused: %s", refused)
            return
        else:
            await self._serve(wire)
        finally:
            self._tasks.discard(task)

    async def _serve(self, wire: Wire) -> None:
        front = _Front(self, wire)
        self._fronts.add(front)
        reporting = asyncio.create_task(front.keep_reporting(), name="report to a front")
        try:
            while True:
                front.receive(await wire.receive())
        except WireClosed:
            pass
        finally:
            reporting.cancel()
            front.abandon()
            self._fronts.discard(front)
            self.request_ended.set()
            await wire.close()


@dataclass(slots=True)
class _Open:
    """A request that is not over: its model's name in the residency, the times of its stages, and its number here."""

    model: ResidencyName
    times: RequestTimings
    request: RequestId


class _Front:
    """One front that is connected.

    Attributes:
        open: its requests that are not over, by their numbers there.
    """

    def __init__(self, node: NodeServer, wire: Wire) -> None:
        self.open: dict[SequenceId, _Open] = {}
        self._node, self._wire = node, wire
        self._controller = node.yard.controller
        # Those that are not sent yet.
        self._events: list[SequenceEvent] = []
        self._asks: set[asyncio.Task[None]] = set()

    def receive(self, message: Any) -> None:
        """Take a message."""
        match message:
            case ("request", str(model), request, wait_s, keep_alive_s):
                self._begin(model, request, wait_s, keep_alive_s)
            case ("cancel", sequence):
                if (known := self.open.get(sequence)) is not None:
                    self._controller.abandon(known.request)
            case ("ask", int(number), str(what), tuple(args)):
                task = asyncio.create_task(self._answer(number, what, args))
                self._asks.add(task)
                task.add_done_callback(self._asks.discard)
            case _:
                logger.warning("A front sent an unknown message")

    async def close(self) -> None:
        """End the connection."""
        await self._wire.close()

    def abandon(self) -> None:
        """End what the front has asked for: it is gone."""
        for known in list(self.open.values()):
            self._controller.abandon(known.request)
        for task in self._asks:
            task.cancel()

    async def keep_reporting(self) -> None:
        """Send a report at intervals."""
        while True:
            self.report()
            await asyncio.sleep(REPORT_S)

    def report(self) -> None:
        """Send a report."""
        self._wire.send(("report", self._node.report().fields()))

    def _begin(
        self,
        model: str,
        message: Submit | Embed | Rank | Tokenize | Resume,
        wait_s: float | None,
        keep_alive_s: float | None,
    ) -> None:
        sequence = message.sequence
        name = self._node.yard.directory.residency_names.get(ModelId(model))
        if self._node.is_draining or name is None:
            error: ModelyardError = ShuttingDown() if name is not None else ModelNotFound(model, known=())
            self._forward(Failed(sequence, error))
            return
        if isinstance(message, Submit) and (unknown := self._unknown_adapter(model, message)):
            # It was loaded while the cluster ran, and this node has just joined: others have it.
            self._forward(Failed(sequence, ModelNotFound(f"{model}{SEPARATOR}{unknown}", known=())))
            return
        result: RelayedStream | RelayedResult
        if isinstance(message, Submit | Resume):
            is_resumed = isinstance(message, Resume)
            result = RelayedStream(ModelId(model), sequence, self._forward, is_resumed=is_resumed)
        else:
            result = RelayedResult(ModelId(model), sequence, self._forward)
        # Before it is submitted, because a refusal comes at once.
        opened = self.open[sequence] = _Open(name, result.times, RequestId(0))
        request = message.state.request if isinstance(message, Resume) else message
        priority = 0 if isinstance(request, Tokenize) else request.priority
        wait = WaitOptions(priority, wait_s, keep_alive_s)
        opened.request = self._controller.relay(name, message, result, wait)

    def _unknown_adapter(self, model: str, message: Submit) -> str:
        """Return the name of an adapter of a request that the model does not have here; "" for none."""
        if not message.adapters:
            return ""
        known = {adapter.name for adapter in self._node.yard.configured(model).adapters}
        return next((use.name for use in message.adapters if use.name not in known), "")

    def _forward(self, event: SequenceEvent) -> None:
        if not self._events:
            asyncio.get_running_loop().call_soon(self._send_events)
        self._events.append(event)

    def _send_events(self) -> None:
        events, self._events = self._events, []
        identities: dict[int, str] = {}
        for event in events:
            # Nearly all events are tokens.
            if isinstance(event, Token):
                continue
            if isinstance(event, Accepted):
                identities[event.sequence] = self._identity(event.sequence)
            elif isinstance(event, Ending):
                self._end(event.sequence)
        self._wire.send(("events", events, identities))

    def _identity(self, sequence: SequenceId) -> str:
        """Return what names the weights and settings of the engine that has a request."""
        known = self.open.get(sequence)
        profile = None if known is None else self._controller.profiles.get(known.model)
        return "" if profile is None else profile.identity

    def _end(self, sequence: SequenceId) -> None:
        if (known := self.open.pop(sequence, None)) is not None:
            self._node.note_end(known.times, time.monotonic())

    async def _answer(self, number: int, what: str, args: Sequence[Any]) -> None:
        value, error = None, None
        try:
            value = await run_task(self._node.yard, what, args)
        except ModelyardError as failed:
            error = failed
        # First, so that the front knows what has changed once it has the answer.
        self.report()
        self._wire.send(("answer", number, error, value))
