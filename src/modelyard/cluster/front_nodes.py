"""The nodes as a front has them: connections, what they report, and where each request is.

A request that a node refuses goes on to the next one. One whose node is lost goes on at another, from the tokens that
have arrived, as after the death of an engine (``engine/hosts/records.py``): no text is repeated, and none is missing.

Hot path: ``_on_events`` runs once a step of an engine, and its loop once a token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelyard.cluster.node_report import NodeReport
from modelyard.cluster.routing import RoutingTable
from modelyard.cluster.sent_request import SentRequest
from modelyard.cluster.waiting_for_nodes import WaitingForNodes
from modelyard.cluster.wire import UNANSWERED_S, Wire, WireClosed, connect
from modelyard.engine.hosts.codec import ForeignValue
from modelyard.errors import EngineError, InvalidRequest, ModelyardError, NodeNotFound, RemoteUnavailable
from modelyard.protocol.events import Accepted, Cancelled, Ending, Event, Failed, Publish, Suspended, Token
from modelyard.protocol.messages import Request, Resume
from modelyard.protocol.requests import Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.remote.bodies import conversation_key

logger = logging.getLogger(__name__)

MAX_MOVES: Final = 3
"""Nodes that a request may lose before it fails: it may be what they die of."""

RETRY_S: Final = 1
"""Seconds after which a client may try again where no node takes its request."""

REFUSALS: Final = frozenset(
    {
        *("queue_full", "model_loading", "insufficient_memory", "model_load_failed", "shutting_down", "model_unloaded"),
        *("model_not_found", "model_file_changed", "out_of_memory"),
    }
)
"""Codes of errors that another node may not have."""


class FrontNodes:
    """The nodes that a front reaches. Use it on one event loop.

    Args:
        secret: shown to nodes.
        lost_s: seconds without a word after which a node is lost; they report all the time.
        on_waiting: called with whether requests wait for a node, when that changes.

    Attributes:
        table: what is known of the nodes, and where requests go.
        start_s: seconds that a request waits for a node where none is connected; 0: it is refused at once.
        on_joined: is called with the name of a node that has reported for the first time.
        on_report: is called with each report.
    """

    def __init__(
        self,
        secret: str,
        lost_s: float = UNANSWERED_S,
        on_waiting: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.table = RoutingTable()
        self.start_s = 0.0
        self._secret, self._lost_s = secret, lost_s
        self._wires: dict[str, Wire] = {}
        self._links: dict[str, asyncio.Task[None]] = {}
        self._sent: dict[SequenceId, SentRequest] = {}
        # Those of them that wait for a node.
        self._waiting = WaitingForNodes(on_waiting)
        self._asked: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        # When each connected node has sent something last.
        self._heard: dict[str, float] = {}
        self.on_joined: Callable[[str], None] = lambda _: None
        self.on_report: Callable[[NodeReport], None] = lambda _: None
        self._asks = 0
        self._changed = asyncio.Event()

    # Nodes

    def follow(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Connect to the nodes of ``addresses`` that are not connected. Others stay as long as they answer."""
        for name, (host, port) in addresses.items():
            if name not in self._links:
                task = self._links[name] = asyncio.create_task(self._link(name, host, port), name=f"node {name}")
                task.add_done_callback(lambda _, name=name: self._links.pop(name, None))  # type: ignore[misc]

    async def until_connected(self, count: int, timeout_s: float) -> bool:
        """Wait until so many nodes have reported; return whether they have."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.table.nodes) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    @property
    def reports(self) -> list[NodeReport]:
        """The last report of each connected node."""
        return [report for name in self.table.nodes if (report := self.table.report(name)) is not None]

    async def close(self) -> None:
        """Close all connections. Requests that are not over end with an error."""
        # First, so that what nodes lose does not begin to wait.
        self.start_s = 0.0
        for sequence in self._waiting.take_all():
            self._end(self._sent[sequence], _none_connected(self._sent[sequence]))
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def check(self, node: str) -> None:
        """Refuse the name of a node that is not connected.

        Raises:
            NodeNotFound: it is not.
        """
        if node not in self._wires:
            raise NodeNotFound(node, sorted(self._wires))

    def silent_s(self, node: str) -> float:
        """Return the seconds since a connected node has sent anything."""
        return time.monotonic() - self._heard.get(node, 0.0)

    async def ask(self, node: str, what: str, *args: Any) -> Any:
        """Have a node do something, and return what it answers; see ``node_tasks`` for what it can do.

        Raises:
            NodeNotFound: there is no such node.
            RemoteUnavailable: it is lost meanwhile.
            ModelyardError: as the node's yard raises it.
        """
        self.check(node)
        self._asks += 1
        number = self._asks
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = node, answer
        try:
            self._wires[node].send(("ask", number, what, args))
            return await answer
        finally:
            del self._asked[number]

    async def _link(self, name: str, host: str, port: int) -> None:
        """Keep a connection to a node until it ends."""
        try:
            wire = await connect(host, port, self._secret)
        except WireClosed as unreachable:
            logger.warning("The node %s does not answer: %s", name, unreachable)
            return
        self._wires[name] = wire
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._lost_s) as silence:
                while True:
                    message = await wire.receive()
                    silence.reschedule(loop.time() + self._lost_s)
                    self._heard[name] = time.monotonic()
                    self._receive(name, message)
        except WireClosed as closed:
            logger.warning("The node %s is lost: %s", name, closed)
        except TimeoutError:
            logger.warning("The node %s is lost: it has sent nothing for %.0f s", name, self._lost_s)
        finally:
            del self._wires[name]
            self._heard.pop(name, None)
            self.table.remove(name)
            self._lose(name)
            await wire.close()

    def _receive(self, node: str, message: Any) -> None:
        match message:
            case ("events", list(events), dict(identities)):
                self._on_events(node, events, identities)
            case ("report", tuple(fields)):
                report = NodeReport.of_fields(fields)
                is_new = node not in self.table.nodes
                self.table.update(report)
                self.on_report(report)
                self._send_waiting()
                if is_new:
                    logger.info("The node %s has joined", node)
                    self._changed.set()
                    self.on_joined(node)
            case ("answer", int(number), error, value):
                asked = self._asked.get(number)
                if asked is None or asked[1].done():
                    return
                if isinstance(error, ModelyardError):
                    asked[1].set_exception(error)
                else:
                    asked[1].set_result(value)

    # Requests

    def begin(self, model: str, message: Request, publish: Publish) -> None:
        """Send a request to the node that suits it best."""
        key = ""
        if not isinstance(message, Tokenize | Resume):
            key = conversation_key(message, message.forwarding.session)
        sent = self._sent[message.sequence] = SentRequest(model, message, key, publish)
        sent.records.add(message)
        try:
            is_sent = self._send(sent)
        except ForeignValue as unsendable:
            self._end(sent, InvalidRequest(f"The request cannot be sent to a node: {unsendable}."))
            return
        if not is_sent and not self._wait(sent):
            self._end(sent, _none_connected(sent))

    def cancel(self, sequence: SequenceId) -> None:
        """End a request. Unknown ones are ignored."""
        if (sent := self._sent.get(sequence)) is not None:
            sent.is_cancelled = True
            if sequence in self._waiting:
                self._forget(sent)
                asyncio.get_running_loop().call_soon(sent.publish, [Cancelled(sequence)])
            else:
                self._wires[sent.node].send(("cancel", sequence))

    def is_accepted(self, sequence: SequenceId) -> bool:
        """Whether a node has accepted a request."""
        sent = self._sent.get(sequence)
        return sent is not None and sent.is_accepted

    def take_back(self, sequence: SequenceId) -> None:
        """End a request without an event that says so."""
        if sequence not in self._waiting:
            self.cancel(sequence)
            self._sent.pop(sequence, None)
        else:
            self._forget(self._sent[sequence])

    def _send(self, sent: SentRequest) -> bool:
        """Send a request to the best node that has not refused it; return whether there is one."""
        choice = self.table.choose(sent.model, sent.key, time.monotonic(), sent.tried)
        if choice is None:
            return False
        sent.node, sent.has_begun = choice.node, False
        self.table.note_sent(choice.node, sent.model, sent.key)
        message = sent.message
        request = message.state.request if isinstance(message, Resume) else message
        wait_s = keep_alive_s = None
        if not isinstance(request, Tokenize):
            wait_s, keep_alive_s = request.forwarding.wait_s, request.forwarding.keep_alive_s
        self._wires[choice.node].send(("request", sent.model, message, wait_s, keep_alive_s))
        return True

    def _on_events(self, node: str, events: Sequence[Event], identities: Mapping[int, str]) -> None:
        batches: dict[int, tuple[Publish, list[Event]]] = {}
        for event in events:
            sent = self._sent.get(event.sequence)  # type: ignore[union-attr]
            if sent is None or sent.node != node:
                continue
            if isinstance(event, Token):
                sent.has_begun = True
            elif isinstance(event, Accepted):
                sent.is_accepted = sent.has_begun = True
                sent.identity = identities.get(event.sequence, "")
            elif isinstance(event, Ending):
                if self._goes_on(sent, event):
                    continue
                del self._sent[event.sequence]
            sent.records.update((event,))
            batches.setdefault(id(sent.publish), (sent.publish, []))[1].append(event)
        for publish, batch in batches.values():
            publish(batch)

    def _goes_on(self, sent: SentRequest, event: Ending) -> bool:
        """Whether a request goes on at another node although its own has ended it."""
        if sent.is_cancelled:
            return False
        if isinstance(event, Failed) and event.error.code in REFUSALS and not sent.has_begun:
            seconds = getattr(event.error, "retry_after_s", None)
            self.table.note_refused(sent.node, sent.model, time.monotonic(), seconds)
            logger.info("%s refuses a request for %s: %s", sent.node, sent.model, event.error)
            sent.tried.add(sent.node)
            return self._send(sent) or self._wait(sent)
        # A node that is about to leave ends what it still has.
        is_leaving = isinstance(event, Cancelled) or (isinstance(event, Failed) and event.error.code == "shutting_down")
        return is_leaving and self._move(sent)

    def _move(self, sent: SentRequest) -> bool:
        """Send a request whose node is lost to another one, to go on there; return whether there is one."""
        sent.moves += 1
        if sent.moves > MAX_MOVES:
            return False
        last = sent.records.drain(sent.identity)[0]
        if isinstance(last, Suspended):
            sent.message = Resume(last.state)
        sent.records.add(sent.message)
        sent.tried.add(sent.node)
        lost, sent.node = sent.node, ""
        if not self._send(sent):
            return self._wait(sent)
        logger.info("A request for %s goes on at %s, after %s", sent.model, sent.node, lost)
        return True

    def _lose(self, node: str) -> None:
        """Have what a lost node had go on elsewhere."""
        for sent in [sent for sent in self._sent.values() if sent.node == node]:
            if sent.is_cancelled:
                del self._sent[sent.message.sequence]
                sent.publish([Cancelled(sent.message.sequence)])
            elif not self._move(sent):
                self._end(sent, EngineError(sent.model, f"its node {node} is lost, and no other one takes it"))
        for asked, answer in self._asked.values():
            if asked == node and not answer.done():
                answer.set_exception(RemoteUnavailable(node, "the node is lost", RETRY_S))

    # Requests for which there is no node

    @property
    def why_none(self) -> str:
        """Why no node is there for a request; "" where one is."""
        if self._has_node:
            return ""
        if self._waiting:
            return self._waiting.status(time.monotonic())
        return f"no node of the cluster is connected{'; a request starts one' if self.start_s else ''}"

    @property
    def _has_node(self) -> bool:
        return any(not report.is_draining for report in self.reports)

    def _wait(self, sent: SentRequest) -> bool:
        """Have a request wait for a node, where none is connected that takes any; return whether it does."""
        if not self.start_s or self._has_node:
            return False
        message = sent.message
        request = message.state.request if isinstance(message, Resume) else message
        own_s = None if isinstance(request, Tokenize) else request.forwarding.wait_s
        seconds = self.start_s if own_s is None else min(self.start_s, own_s)
        sent.node = ""
        # The node that comes may have the name of one that has gone.
        sent.tried.clear()
        self._waiting.add(message.sequence, seconds, lambda: self._end(sent, _none_connected(sent, seconds)))
        return True

    def _send_waiting(self) -> None:
        """Send the requests that wait, if there is a node."""
        if not self._waiting or not self._has_node:
            return
        for sequence in self._waiting.take_all():
            sent = self._sent[sequence]
            if not self._send(sent):
                self._end(sent, _none_connected(sent))

    def _forget(self, sent: SentRequest) -> None:
        self._waiting.remove(sent.message.sequence)
        del self._sent[sent.message.sequence]

    def _end(self, sent: SentRequest, error: ModelyardError) -> None:
        self._forget(sent)
        # In a later turn of the event loop, as an engine's thread would: the caller may be in the middle of a change.
        failed = Failed(sent.message.sequence, error)
        asyncio.get_running_loop().call_soon(sent.publish, [failed])


def _none_connected(sent: SentRequest, waited_s: float = 0.0) -> RemoteUnavailable:
    within = f" within {waited_s:.0f} s" if waited_s else ""
    return RemoteUnavailable(sent.model, f"no node of the cluster is connected{within}", RETRY_S)
