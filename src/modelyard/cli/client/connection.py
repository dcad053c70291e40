"""Requests to a server over HTTP, whose failures are errors with a way out.

They go through Python's own client: importing another one takes longer than the whole command.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from modelyard.cli.client.answers import is_answer, is_event
from modelyard.errors import KeyRefused, ModelyardError, NotModelyard, ServerRefused, ServerUnreachable
from modelyard.system.announcements import Announcement
from modelyard.system.printable import printable, printable_lines
from modelyard.version import __version__

CONNECT_S: Final = 5.0
"""Seconds after which a connection that is not established is given up."""
ANSWER_S: Final = 30.0
"""Seconds within which a server answers a request that does not wait for a model."""

_MAX_ANSWER_BYTES: Final = 64 * 2**20
_TITLE: Final = re.compile(rb"<title[^>]*>\s*([^<]{1,80}?)\s*</title>", re.IGNORECASE)
_PIECE_BYTES: Final = 65_536
_MAX_REASON_CHARS: Final = 80


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, and the key to use it with.

    Attributes:
        url: its URL, without ``/v1``.
        key: the API key; None: none is sent.
        source: where the address comes from: "--url", "MODELYARD_HOST", "announced" or "default".
        announcement: what the server has told of itself on this machine; None: it is not known to be of this machine.
        model: the id there of the model that was looked for; None: none was.
    """

    url: str
    key: str | None
    source: str = "default"
    announcement: Announcement | None = None
    model: str | None = None

    @property
    def is_starting(self) -> bool:
        """Whether the server is one of this machine that loads its models. Its port may be open already."""
        return self.announcement is not None and not self.announcement.is_serving


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event: its name, "message" by default, its data, and its id, "" without one.

    A comment, which keeps the connection alive, is the event "".
    """

    name: str
    data: str
    id: str = ""


def get(address: ServerAddress, path: str, *, within_s: float = ANSWER_S) -> dict[str, Any]:
    """Return the JSON object that ``GET path`` answers with.

    Raises:
        ServerUnreachable: no server answers in time.
        NotModelyard: another program answers.
        ServerRefused: the server answers with an error.
    """
    return _exchange(address, "GET", path, None, within_s)


def post(address: ServerAddress, path: str, body: Mapping[str, Any], *, within_s: float = ANSWER_S) -> dict[str, Any]:
    """Return the JSON object that ``POST path`` answers ``body`` with.

    Raises:
        ServerUnreachable, NotModelyard, ServerRefused: as ``get``.
    """
    return _exchange(address, "POST", path, body, within_s)


@contextmanager
def events(
    address: ServerAddress, path: str, *, silence_s: float, last_id: str = ""
) -> Iterator[Iterator[ServerEvent]]:
    """Enter with the server-sent events of ``GET path``, which end when the server ends them or the connection breaks.

    Source: HTML Standard, "Server-sent events", https://html.spec.whatwg.org/multipage/server-sent-events.html.

    Args:
        silence_s: seconds without a byte after which the connection counts as broken.
        last_id: id of the last event that was received before, "" for none.

    Raises:
        ServerUnreachable, NotModelyard, ServerRefused: as ``get``, before the first event.
    """
    headers = {"accept": "text/event-stream", **({"last-event-id": last_id} if last_id else {})}
    with _answered(address, "GET", path, None, headers, CONNECT_S, silence_s) as response:
        if response.headers.get_content_type() != "text/event-stream":
            _decoded(address, response, _content(address, response, time.monotonic() + ANSWER_S))
            raise NotModelyard(address.url, f"answered GET {path} without events")
        yield _parsed(response)


def _exchange(
    address: ServerAddress, method: str, path: str, body: Mapping[str, Any] | None, within_s: float
) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    with _answered(address, method, path, body, {}, min(CONNECT_S, within_s), within_s) as response:
        answer = _decoded(address, response, _content(address, response, deadline))
    if not is_answer(path, answer):
        raise NotModelyard(address.url, f"answered {method} {path} with another object")
    return answer


def event_object(address: ServerAddress, path: str, event: ServerEvent) -> dict[str, Any]:
    """Return the JSON object in the data of an event of ``GET path``.

    Raises:
        NotModelyard: it is not one as Modelyard sends.
    """
    try:
        data: dict[str, Any] = json.loads(event.data)
    except (ValueError, RecursionError):
        data = {}
    if not is_event(path, data):
        raise NotModelyard(address.url, f"sent other events than those of GET {path}")
    return data


def _content(address: ServerAddress, response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Return the body of a response.

    Raises:
        ServerUnreachable: it does not arrive by ``deadline``, or is cut.
    """
    pieces, size = [], 0
    try:
        while piece := response.read1(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_ANSWER_BYTES:
                raise OSError("the answer is too long")
            if time.monotonic() > deadline:
                raise TimeoutError
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(address, error) from error
    return b"".join(pieces)


@contextmanager
def _answered(
    address: ServerAddress,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    connect_s: float,
    silence_s: float,
) -> Iterator[http.client.HTTPResponse]:
    """Enter with the response to a request, whose head has been read."""
    parts = urlsplit(address.url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=connect_s, context=tls_context(address)
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=connect_s)
    sent = {"accept": "application/json", "user-agent": f"modelyard/{__version__}", **headers}
    if address.key is not None:
        sent["authorization"] = f"Bearer {address.key}"
    content = None
    if body is not None:
        content, sent["content-type"] = json.dumps(body).encode(), "application/json"
    try:
        try:
            connection.connect()
            connection.sock.settimeout(silence_s)
            connection.request(method, parts.path + path, content, sent)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise _unreachable(address, error) from error
        # A response that the server ends by closing the connection holds the socket.
        with response:
            yield response
    finally:
        connection.close()


def tls_context(address: ServerAddress) -> ssl.SSLContext:
    """Return the TLS settings for a server: one of this machine is known by the very certificate that it serves with.

    Others need a certificate that the system's authorities, or those in SSL_CERT_FILE, have signed.
    """
    context = ssl.create_default_context()
    certificate = None if address.announcement is None else address.announcement.certificate
    if certificate is not None:
        # The certificate names the host that others reach, not the loopback address.
        with suppress(OSError):
            context.load_verify_locations(certificate)
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _parsed(response: http.client.HTTPResponse) -> Iterator[ServerEvent]:
    name, data, event_id = "", [], ""
    # A broken connection ends the events; who follows them connects again.
    with suppress(OSError, http.client.HTTPException):
        while line := response.readline(_MAX_ANSWER_BYTES):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            field, _, value = text.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "" if text:
                    yield ServerEvent("", value)
                case "event":
                    name = value
                case "data":
                    data.append(value)
                case "id":
                    event_id = value
                case "" if data:
                    yield ServerEvent(name or "message", "\n".join(data), event_id)
                    name, data = "", []


def _decoded(address: ServerAddress, response: http.client.HTTPResponse, content: bytes) -> dict[str, Any]:
    """Return the object that a server answered with, or raise the error that it answered with."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        error = answer.get("error")
        if response.status < 300 and error is None:
            return answer
        # Modelyard's errors, in the shape of OpenAI's, always have a code, which is a name.
        if isinstance(error, dict) and isinstance(error.get("code"), str) and isinstance(error.get("message"), str):
            if response.status == 401:
                raise KeyRefused(address.url, was_sent=address.key is not None)
            raise ServerRefused(printable_lines(error["message"]), error["code"], response.status)
    raise NotModelyard(address.url, _description(response, content))


def _description(response: http.client.HTTPResponse, content: bytes) -> str:
    status = f"answered {response.status} {printable(response.reason, _MAX_REASON_CHARS)}".rstrip()
    if (title := _TITLE.search(content[:_PIECE_BYTES])) is not None:
        return f"{status}, with a web page: {printable(' '.join(title[1].decode('utf-8', 'replace').split()))}"
    if response.headers.get_content_type() == "text/html":
        return f"{status}, with a web page"
    return status


def _unreachable(address: ServerAddress, error: Exception) -> ServerUnreachable | NotModelyard:
    """Return what a failed attempt means for the user."""
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        return NotModelyard(address.url, "does not speak HTTP")
    is_refused = isinstance(error, ConnectionRefusedError)
    return ServerUnreachable(address.url, _why(address, error), _hint(address, error), is_refused=is_refused)


def _why(address: ServerAddress, error: Exception) -> str:
    match error:
        case ConnectionRefusedError() | TimeoutError() if address.is_starting:
            return "it is starting, and loads its models"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message.lower()})"
        case ssl.SSLError():
            return "it does not speak TLS"
        case TimeoutError():
            return "it does not answer in time"
        case ConnectionRefusedError() if address.announcement is not None:
            return "it is stopping"
        case ConnectionRefusedError():
            return "nothing listens there"
        case socket.gaierror():
            return f"the host '{urlsplit(address.url).hostname}' is not known"
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return "it closes the connection"
        case OSError():
            return (error.strerror or str(error) or type(error).__name__).lower()
        case _:
            return str(error) or type(error).__name__


def _hint(address: ServerAddress, error: Exception) -> str:
    match error:
        case ConnectionRefusedError() | TimeoutError() if address.is_starting:
            return "Try again when they are loaded."
        case ssl.SSLCertVerificationError():
            return "Set SSL_CERT_FILE to the certificate of its authority."
        case ssl.SSLError():
            return "Write http:// in its address."
        case TimeoutError():
            return "It is overloaded or hangs, or a firewall drops what is sent to it."
        case http.client.RemoteDisconnected() | ConnectionResetError() if address.url.startswith("http://"):
            return "If it serves HTTPS, write https:// in its address."
        case ConnectionRefusedError() if address.announcement is not None:
            return "To end its requests: modelyard stop --now"
        case _ if address.source in ("default", "announced"):
            return "Start one with: modelyard serve MODEL"
        case _:
            return f"Start it there, or name another one: the address is from {address.source}."


def probe(address: ServerAddress, *, within_s: float = CONNECT_S) -> bool:
    """Whether the server is alive: it answers ``GET /health/live``, which needs no key and counts for no limit."""
    try:
        with _answered(replace(address, key=None), "GET", "/health/live", None, {}, within_s, within_s) as response:
            return response.status == 200
    except ModelyardError:
        return False
