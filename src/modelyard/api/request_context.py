"""One HTTP request, as it is observed from its first byte to its last."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING

from starlette.types import Scope

from modelyard.yard.requests.context import Caller

if TYPE_CHECKING:
    from modelyard.config import AccessKey
    from modelyard.yard.requests.timings import RequestTimings

# A client's own id goes into headers and logs as it is: on one line, and short.
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

# Methods by which metrics tell requests apart; any other word is a client's invention.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

NO_ROUTE = "unknown"
NO_MODEL = "none"
UNKNOWN_MODEL = "unknown"

_KEY = "modelyard.visit"


class RequestContext:
    """A request that is being answered, or has been.

    Attributes:
        request_id: the client's, where it sent one that is short and printable; else a new one.
        method: as sent, or "OTHER".
        caller: on whose behalf the yard is called.
        key: that it was let in with; None: without.
        headers: to be sent with the answer, whatever it is.
        status: of the answer; None while there is none.
        body_bytes: received so far.
        began, ended: seconds of ``time.monotonic``; ended is 0 while it is answered.
    """

    def __init__(self, scope: Scope) -> None:
        self.request_id = _request_id(scope)
        # A websocket has none: it begins as a GET.
        method: str = scope.get("method", "GET")
        self.method = method if method in METHODS else "OTHER"
        self.caller = Caller()
        self.key: AccessKey | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.status: int | None = None
        self.body_bytes = 0
        self.began = time.monotonic()
        self.ended = 0.0
        self._scope = scope
        scope[_KEY] = self

    @staticmethod
    def of(scope: Scope) -> RequestContext:
        """The visit of the request that ``scope`` is of."""
        visit: RequestContext = scope[_KEY]
        return visit

    @property
    def route(self) -> str:
        """The pattern of its path, such as ``/v1/models/{model_id:path}``; never the path itself."""
        return getattr(self._scope.get("route"), "path", NO_ROUTE)

    @property
    def model(self) -> str:
        """The id of the model that it was for, or that it was for one that is not there, or for none."""
        caller = self.caller
        return caller.model or (UNKNOWN_MODEL if caller.has_asked else NO_MODEL)

    @property
    def is_housekeeping(self) -> bool:
        """Whether a machine asks how the server is, or a browser what it may ask."""
        path: str = self._scope["path"]
        return path in ("/", "/metrics") or path.startswith("/health") or self.method == "OPTIONS"

    @property
    def is_anthropic(self) -> bool:
        """Whether Anthropic's dialect is spoken, whose clients look for the id under a name of their own."""
        path: str = self._scope["path"]
        return path.startswith("/v1/messages")

    @property
    def times(self) -> RequestTimings | None:
        """Of its answer, the first where there are several; None: no model was asked."""
        return self.caller.requests[0].times if self.caller.requests else None


def _request_id(scope: Scope) -> str:
    sent: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return sent.decode("ascii") if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
