"""One HTTP connection: uvicorn's protocol with limits of size and time, and with a place among all connections.

uvicorn with httptools parses heads of any length, and has a deadline only for idle connections. httptools comes with
``uvicorn[standard]`` on every system; h11, which has a limit of its own, takes three times as long for a request.

Hot path: a frame of a stream passes only through uvicorn's ``send``. A request costs 3 µs here.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from modelyard.api.middleware.body_intake import MAX_BODY_BYTES
from modelyard.errors import (
    ModelyardError,
    RequestTimeout,
    RequestTooLarge,
    ShuttingDown,
    TooManyConnections,
    UriTooLong,
)
from modelyard.inprocess.http_server import refusals
from modelyard.inprocess.http_server.connections import Connections
from modelyard.inprocess.http_server.forwarded import forwarded, with_hosts
from modelyard.inprocess.http_server.limits import (
    MAX_BODY_BYTES_BEFORE_START,
    MAX_DROPPED_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADER_LINES,
    MAX_LINGER_BYTES,
    MAX_PIPELINED,
    MAX_URL_BYTES,
    SPARE_PATHS,
    is_framing_excessive,
    is_stalled,
)
from modelyard.inprocess.http_server.places import Loss, Phase, Place, share_of
from modelyard.inprocess.http_server.read_turns import ReadInTurns
from modelyard.inprocess.http_server.refusals import refusal_bytes
from modelyard.inprocess.http_server.unframed import unframed
from modelyard.inprocess.http_server.unsent import unsent_bytes

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

logger = logging.getLogger(__name__)

Address = tuple[str, int]
"""An IPv4 or IPv6 address and a port."""

# Bytes that are parsed at once, so that the limits of a head are checked before it grows large.
_SLICE_BYTES: Final = MAX_HEAD_BYTES


def _declared_bytes(cycle: RequestResponseCycle) -> int:
    """Return the Content-Length of a request; 0 if it has none."""
    lengths = (value for name, value in cycle.scope["headers"] if name == b"content-length")
    return next((int(length) for length in lengths if length.isdigit()), 0)


class _AnswerTransport:
    """The transport that an answer is written to. Closing it waits until the body of the request was read."""

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self.write, self.is_closing = protocol.transport.write, protocol.transport.is_closing

    def close(self) -> None:
        """Close the connection; see ``BoundedProtocol.close_after_body``."""
        self._protocol.close_after_body()


class BoundedProtocol(HttpToolsProtocol):
    """A connection that holds a place.

    Args:
        connections: all connections of the server.
        place: the place of this connection.
        addresses: addresses of the server and the client.

    Attributes:
        attaching: the task that connects the protocol to its socket, TLS handshake included.
    """

    attaching: asyncio.Task[None]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
        place: Place,
        addresses: tuple[Address, Address],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.server, self.client = addresses
        self._shared, self._place = connections, place
        place.give_up = self._give_up
        self._answering: RequestResponseCycle | None = None
        # The application to call once enough of the body has arrived.
        self._unstarted: ASGI3Application | None = None
        self._closes_after_body = False
        # After a refusal, further bytes are dropped.
        self._is_refused = False
        self._refusal: ModelyardError | None = None
        self._dropped = 0
        self._unsent = 0
        self._peer_is_trusted = addresses[1][0] in connections.trusted
        # State of the message that is being parsed.
        self.url = b""
        self._messages = 0
        self._in_head = True
        self._has_begun = False
        self._waits_for_upgrade = False
        self._unparsed = self._head_bytes = self._lines = self._body_bytes = self._framing = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start, unless the connection was given up meanwhile.

        Replaces uvicorn's method, which asks the system for addresses that are known here.
        """
        self.connections.add(self)
        self.transport = transport
        self.flow = ReadInTurns(transport, self._shared.read_turns)
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        if self._place.is_left:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        self._shared.places.leave(self._place)
        self._shared.unwatch(self)
        self._unstarted = None
        self._shared.turns.call(partial(super().connection_lost, exc))

    def pause_writing(self) -> None:
        """Watch that the client reads: the write buffer is full."""
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        """Stop watching the client: it has read enough."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._shared.unwatch(self)

    def check_progress(self, elapsed_s: float) -> None:
        """Abort the connection if its client reads too slowly; see ``Unread``."""
        unsent = unsent_bytes(self.transport)
        if is_stalled(self._unsent - unsent, elapsed_s):
            self._shared.losses.note(Loss.STALLED, self._place.address)
            self.transport.abort()
        self._unsent = unsent

    def shutdown(self) -> None:
        """Finish an answer that has started, and close the connection otherwise: the server stops."""
        answering = self._answering
        self.pipeline.clear()
        if self._place.phase is Phase.ANSWER and answering is not None and not answering.response_complete:
            answering.keep_alive = False
            self.cycle.keep_alive = False
        elif self._place.phase is Phase.BODY:
            self._refuse(ShuttingDown(), lingers=False)
        else:
            self._close()

    def _close(self) -> None:
        """Close the connection when everything is sent; the client must keep reading."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_unread()

    def close_after_body(self) -> None:
        """Close the connection once the rest of the answered request's body was read and dropped.

        Closing with unread bytes would reset the connection, and the client might not see the answer.
        """
        if self._in_head or self.transport.is_closing():
            self.transport.close()
            return
        self._closes_after_body = True
        self.pipeline.clear()

    def _watch_unread(self) -> None:
        self._unsent = unsent_bytes(self.transport)
        self._shared.watch(self)

    def _give_up(self, loss: Loss) -> bool:
        """Close or refuse the connection, which is late or gives way; return whether it did."""
        if self.transport is None:
            self.attaching.cancel()
        elif self._place.phase is Phase.CLOSING:
            self.transport.abort()
        elif self._place.phase is Phase.IDLE or not (self._has_begun or self._unparsed):
            # A browser connects before its first request, and would take a refusal for the answer to that request.
            self._close()
        elif loss is Loss.GAVE_WAY:
            self._refuse(refusals.all_taken(self._shared.places.limit), lingers=False)
        elif loss is Loss.HEAD_LATE:
            self._refuse(refusals.LATE_HEAD)
        elif self.flow.read_paused:
            # The application has paused reading, so the client is not late.
            self._place.since_s = self._place.fed_s = self._shared.places.now_s
            return False
        else:
            self._refuse(refusals.LATE_BODY)
        return True

    # Received data

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, in slices."""
        if self._is_refused or self._waits_for_upgrade:
            self._drop(len(data))
            return
        self._place.fed_s = self._shared.places.now_s
        if len(data) <= _SLICE_BYTES:
            self._parse(data)
        else:
            view = memoryview(data)
            for start in range(0, len(data), _SLICE_BYTES):
                self._parse(view[start : start + _SLICE_BYTES])
                if self._is_refused or self._waits_for_upgrade or self.transport.is_closing():
                    break
        self._update_phase()

    def _parse(self, data: bytes | memoryview[int]) -> None:
        messages, was_in_head, body_bytes = self._messages, self._in_head, self._body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The server speaks only HTTP/1.1. It answers the request without an upgrade, and closes the connection.
            self._waits_for_upgrade = True
            self._start()
        except httptools.HttpParserError as error:
            logger.debug("A request could not be parsed", exc_info=error)
            self._refuse(self._refusal or refusals.NOT_HTTP)
            return
        if messages != self._messages or was_in_head is not self._in_head:
            return
        if self._in_head:
            self._unparsed += len(data)
            if self._unparsed > MAX_HEAD_BYTES:
                self._refuse(refusals.LONG_HEAD)
        else:
            self._framing += len(data) - (self._body_bytes - body_bytes)
            if is_framing_excessive(self._framing, self._body_bytes):
                self._refuse(refusals.FRAMING)

    def on_message_begin(self) -> None:
        """Reset the counts of the previous request."""
        super().on_message_begin()
        self._messages += 1
        self._has_begun = True
        self._head_bytes = self._lines = self._body_bytes = self._framing = 0

    def on_url(self, url: bytes) -> None:
        """Count a piece of the URL."""
        self.url += url
        self._head_bytes += len(url)
        if len(self.url) > MAX_URL_BYTES:
            self._stop_parsing(UriTooLong(MAX_URL_BYTES))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header line; refuse trailers, which the application would not read."""
        if not self._in_head:
            self._stop_parsing(refusals.TRAILERS)
        self._lines += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._lines > MAX_HEADER_LINES:
            self._stop_parsing(refusals.MANY_LINES)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop_parsing(refusals.LONG_HEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the complete head, and call the application."""
        self._in_head = False
        self._unparsed = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop_parsing(refusals.PIPELINE)
        if self._place.is_spare and self.url.partition(b"?")[0] not in SPARE_PATHS:
            self._stop_parsing(self._shared.refuse(self._place.address))
        if self._peer_is_trusted:
            self._apply_forwarded()
        if self.url[:1] not in (b"/", b"*"):
            self._add_host_of_url()
        upgrades = self.parser.should_upgrade()
        if upgrades and any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
            # The parser does not parse the body of an upgrade, and would take it for the next request.
            self._stop_parsing(refusals.UPGRADE)
        super().on_headers_complete()
        self.cycle.transport = _AnswerTransport(self)  # type: ignore[assignment]
        if upgrades or self._place.is_spare:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Count a piece of the body."""
        self._body_bytes += len(body)
        victim = self._shared.places.receive(self._place, len(body))
        if victim is not None:
            if victim is self._place:
                self._stop_parsing(refusals.MANY_BODIES)
            self._shared.lose(victim, Loss.GAVE_WAY)
        if self.cycle.response_complete and self._body_bytes > MAX_DROPPED_BYTES:
            self._stop_parsing(RequestTooLarge(MAX_DROPPED_BYTES))
        super().on_body(body)
        if self._unstarted is not None and not self._awaits_body(self.cycle):
            self._start()

    def on_message_complete(self) -> None:
        """Start the request if it has waited for its body, or close the connection if it was answered before."""
        self._in_head = True
        self._has_begun = False
        super().on_message_complete()
        if self._closes_after_body:
            self._close()
        elif self._unstarted is not None:
            self._start()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Call the application once the body, or ``MAX_BODY_BYTES_BEFORE_START`` of it, has arrived.

        A client that waits for "100 Continue" sends no body before, and a body that is too large is refused at once.
        """
        self._answering = cycle
        self._unstarted = unframed(app, cycle) if cycle.scope["http_version"] == "1.0" else app
        if not self._awaits_body(cycle):
            self._start()

    def _awaits_body(self, cycle: RequestResponseCycle) -> bool:
        return (
            cycle.more_body
            and not cycle.waiting_for_100_continue
            and len(cycle.body) < MAX_BODY_BYTES_BEFORE_START
            and not self._waits_for_upgrade
            and _declared_bytes(cycle) <= MAX_BODY_BYTES
        )

    def _start(self) -> None:
        app, self._unstarted = self._unstarted, None
        if app is not None and self._answering is not None:
            super()._start_asgi_task(self._answering, app)

    def on_response_complete(self) -> None:
        """Start the next request of the pipeline, if there is one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._watch_unread()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._peer_is_trusted:
            self._shared.places.count_for(self._place, None)
        self._update_phase()

    def _update_phase(self) -> None:
        """Move the place to the phase that the connection is in."""
        if self._is_refused:
            return
        answering = self._answering
        if answering is not None and not answering.response_complete:
            phase = Phase.BODY if answering.more_body else Phase.ANSWER
        elif not self._in_head:
            phase = Phase.BODY
        elif self._has_begun or answering is None:
            phase = Phase.HEAD
        else:
            phase = Phase.IDLE
        if phase is not self._place.phase:
            self._shared.places.move(self._place, phase)

    # Proxies and odd requests

    def _apply_forwarded(self) -> None:
        original = forwarded(self.headers, self._shared.trusted)
        if original.client is not None:
            self.scope["client"] = (original.client, 0)
        if original.scheme is not None:
            self.scope["scheme"] = original.scheme
        if original.hosts:
            # The scope holds this list, so it is changed in place.
            self.headers[:] = with_hosts(self.headers, original.hosts)
        address = None if original.client is None else share_of(original.client)
        if not self._shared.places.count_for(self._place, address):
            self._shared.losses.note(Loss.SHARE_TAKEN, address)
            self._stop_parsing(refusals.share_taken(self._shared.places.address_limit))

    def _add_host_of_url(self) -> None:
        """Add the host of an absolute URL, which takes precedence, as a Host header, so that it is checked."""
        url = httptools.parse_url(self.url)
        host = url.host or b""
        self.headers.append((b"host", host if url.port is None else b"%b:%d" % (host, url.port)))

    # Refusal

    def _stop_parsing(self, refusal: ModelyardError) -> None:
        """Abort the parser from within one of its callbacks."""
        self._refusal = refusal
        raise httptools.HttpParserError(str(refusal))

    def _refuse(self, refusal: ModelyardError, *, lingers: bool = True) -> None:
        """Answer with an error unless an answer has started, and close the connection."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._unstarted = None
        if not isinstance(refusal, RequestTimeout | ShuttingDown | TooManyConnections):
            self._shared.losses.note(Loss.UNFIT, self._place.address)
        answering = self._answering
        # An answer has started, or was complete before the end of its request's body.
        has_answer = (
            answering is not None and answering.response_started and not (answering.response_complete and self._in_head)
        )
        for cycle in (answering, self.cycle):
            if cycle is not None and not cycle.response_complete:
                # The application sees a disconnect, and its writes are dropped.
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        if not has_answer:
            path = self.url.partition(b"?")[0].decode("latin-1")
            self.transport.write(refusal_bytes(refusal, path, self.server_state.default_headers))
        self._shared.places.move(self._place, Phase.CLOSING)
        if has_answer or not lingers or not self.transport.can_write_eof():
            self._close()
        else:
            # Closing with unread bytes would reset the connection, and the client might not see the answer.
            self.transport.write_eof()
            self.flow.resume_reading()

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > MAX_LINGER_BYTES:
            self.transport.abort()
