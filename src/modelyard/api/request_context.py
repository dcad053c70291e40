"""The context of one HTTP request: what middleware, endpoints, logs and metrics share about it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Collection, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.types import Scope

from modelyard.errors import InvalidRequest
from modelyard.protocol.forwarding import HOPS_HEADER, SESSION_HEADER
from modelyard.yard.requests.context import Caller, RequestOrigin

if TYPE_CHECKING:
    from modelyard.config import AccessKey
    from modelyard.yard.requests.timings import RequestTimings

# A client's own id appears unchanged in headers and logs, so it must be short and printable.
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

_HOPS: Final = re.compile(rb"[0-9a-f]{16}(?:,[0-9a-f]{16}){0,63}")
_HOPS_HEADER: Final = HOPS_HEADER.encode()
_SESSION_HEADER: Final = SESSION_HEADER.encode()

# Methods that are labels of metrics. All others count as "OTHER": clients may send any word.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

NO_ROUTE = "unknown"
NO_MODEL = "none"
UNKNOWN_MODEL = "unknown"

_KEY = "modelyard.request_context"

_LOOKS: Final = frozenset({"/v1/models/history", "/v1/models/plan"})
"""Paths that only look at models."""

IGNORED_HEADER: Final = b"x-modelyard-ignored"
"""The response header that lists the parts of a request that had no effect."""

REPAIRED_HEADER: Final = b"x-modelyard-repaired"
"""The response header that lists what a conversation needed before the model's chat template took it."""

# Clients name the fields, so the header is bounded, and holds printable ASCII only.
_MAX_LISTED: Final = 32
_MAX_NAME_LENGTH: Final = 80
_NAME_CHARACTERS: Final = " !#$&'()*+-./:;<=>?@[\\]^_`{|}~"


class RequestContext:
    """The context of one request.

    Attributes:
        request_id: the client's id if it is short and printable; else a new id.
        method: the HTTP method, or "OTHER".
        caller: limits and rights of the request in the yard.
        origin: what the yard records of where its requests come from.
        key: the API key of the request; None: it has none.
        headers: headers to add to the answer, also to an error.
        ignored: the parts of the request that had no effect, such as ``keep_alive`` or ``tools[2]``, as keys.
        is_strict: whether a request with such parts is refused; ``strict`` in ``[server]``.
        status: HTTP status of the answer; None before it is sent.
        error_code: code of the error that the request was refused with before its answer began; None: of none.
        error_param: the field that the error names; None: it names none.
        unknown_model: the model that the request names, where there is none of that name.
        body_bytes: bytes of the body received so far.
        began: start of the request in seconds of ``time.monotonic``.
        ended: end of the answer in the same seconds; 0 before.
    """

    def __init__(self, scope: Scope) -> None:
        self.request_id = _request_id(scope)
        # The scope of a WebSocket has no method: its handshake is a GET request.
        method: str = scope.get("method", "GET")
        self.method = method if method in METHODS else "OTHER"
        self.caller = Caller()
        self.caller.origin = self.origin = RequestOrigin(self.request_id, scope["path"])
        self.caller.hops, self.caller.session = _forwarded(scope)
        self.key: AccessKey | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.ignored: dict[str, None] = {}
        self.is_strict = False
        self.status: int | None = None
        self.error_code: str | None = None
        self.error_param: str | None = None
        self.unknown_model: str | None = None
        self.body_bytes = 0
        self.began = time.monotonic()
        self.ended = 0.0
        self._scope = scope
        scope[_KEY] = self

    @staticmethod
    def of(scope: Scope) -> RequestContext:
        """Return the context of the request of ``scope``."""
        context: RequestContext = scope[_KEY]
        return context

    @staticmethod
    def find(scope: Scope) -> RequestContext | None:
        """Return the context of the request of ``scope``; None where the request is refused before it has one."""
        context: RequestContext | None = scope.get(_KEY)
        return context

    def ignore(self, names: Iterable[str]) -> None:
        """Add ``names`` to ``ignored``. Must be called before the head of the answer is sent.

        Raises:
            InvalidRequest: there are names, and the server is strict.
        """
        new = dict.fromkeys(names)
        self.ignored |= new
        self.allow(new)

    def allow(self, ignored: Collection[str]) -> None:
        """Refuse parts of a request that have no effect where the server is strict.

        Raises:
            InvalidRequest: there are such parts, and the server is strict.
        """
        if self.is_strict and ignored:
            first = next(iter(ignored))[:_MAX_NAME_LENGTH]
            raise InvalidRequest(
                f"'{first}' would have no effect, and this server is strict ('strict' in [server]). Leave it out.",
                first,
            )

    def note(self, names: Iterable[str]) -> None:
        """Add ``names`` to ``ignored`` on a strict server, too: the client asked for what leaves them out.

        Must be called before the head of the answer is sent.
        """
        self.ignored |= dict.fromkeys(names)

    @property
    def ignored_header(self) -> list[tuple[bytes, bytes]]:
        """The header that lists ``ignored``, and what its grammars do not hold; no header if that is nothing."""
        dropped = (part for request in self.caller.requests for part in request.dropped)
        return _listing(IGNORED_HEADER, self.ignored | dict.fromkeys(dropped))

    @property
    def repaired_header(self) -> list[tuple[bytes, bytes]]:
        """The header that lists the repairs of the first choice's conversation; no header if it needed none."""
        requests = self.caller.requests
        return _listing(REPAIRED_HEADER, requests[0].repairs) if requests else []

    @property
    def listings(self) -> list[tuple[bytes, bytes]]:
        """The headers that say what became of parts of the request."""
        return [*self.ignored_header, *self.repaired_header]

    @property
    def route(self) -> str:
        """The pattern of the route, such as ``/v1/models/{model_id}``; never the path itself."""
        route = self._scope.get("route")
        # Without the converter that Starlette's own pattern has, as in {model_id:path}.
        return getattr(route, "path_format", "") or getattr(route, "path", NO_ROUTE)

    @property
    def path(self) -> str:
        """The path as the client sent it, without its query."""
        path: str = self._scope["path"]
        return path

    @property
    def model(self) -> str:
        """The id of the requested model; ``UNKNOWN_MODEL`` if it does not exist, ``NO_MODEL`` if none was requested."""
        caller = self.caller
        return caller.model or (UNKNOWN_MODEL if caller.has_asked else NO_MODEL)

    @property
    def is_housekeeping(self) -> bool:
        """Whether the request only looks at the server: a health check, metrics, a CORS preflight, the page."""
        path: str = self._scope["path"]
        return (
            path in ("/", "/metrics", "/v1/health", "/v1/server")
            or path.startswith(("/health", "/ui/"))
            or self.method == "OPTIONS"
            # A page asks for these every few seconds. A refused request may be a try of a key.
            or ((path in _LOOKS or path.startswith("/v1/activity")) and (self.status or 0) < 400)
        )

    @property
    def is_anthropic(self) -> bool:
        """Whether the path is of Anthropic's dialect, whose clients read the id from a header of another name."""
        path: str = self._scope["path"]
        return path.startswith("/v1/messages")

    @property
    def times(self) -> RequestTimings | None:
        """Timings of the first choice; None: the request reached no model."""
        return self.caller.requests[0].times if self.caller.requests else None


def listed(names: Collection[str]) -> str:
    """Return ``names``, which clients may have chosen, as one short line of printable ASCII."""
    shown = [quote(name[:_MAX_NAME_LENGTH], _NAME_CHARACTERS, errors="replace") for name in islice(names, _MAX_LISTED)]
    if len(names) > _MAX_LISTED:
        shown.append(f"and {len(names) - _MAX_LISTED} more")
    return ", ".join(shown)


def _listing(header: bytes, names: Collection[str]) -> list[tuple[bytes, bytes]]:
    return [(header, listed(names).encode("ascii"))] if names else []


def _forwarded(scope: Scope) -> tuple[tuple[str, ...], str]:
    """Return the servers that the request came through, and its session; neither where the headers are not as ours.

    A client that makes up servers harms its own request alone.
    """
    hops = session = b""
    for name, value in scope["headers"]:
        if name == _HOPS_HEADER and _HOPS.fullmatch(value):
            hops = value
        elif name == _SESSION_HEADER and _REQUEST_ID.fullmatch(value):
            session = value
    return tuple(hops.decode("ascii").split(",")) if hops else (), session.decode("ascii")


def _request_id(scope: Scope) -> str:
    sent: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return sent.decode("ascii") if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
