"""What a request takes along that another server may answer: where it came from, and what it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOPS_HEADER: Final = "x-modelyard-hops"
"""The request header with the ids of the servers that passed the request on, the first one first."""

SESSION_HEADER: Final = "x-session-id"
"""The request header that is equal for the requests of one conversation, whose prefix one server has computed."""

MAX_HOPS: Final = 8
"""Servers that may pass one request on, one to the next."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What goes along with a request to a model that another server has.

    Attributes:
        hops: ids of the servers that have passed the request on, with that of this one at the end.
        session: as the client named the conversation; "": it did not.
        request_id: of the HTTP request; "": there is none.
        wait_s, keep_alive_s: how it waits for its model; see ``WaitOptions``.
    """

    hops: tuple[str, ...] = ()
    session: str = ""
    request_id: str = ""
    wait_s: float | None = None
    keep_alive_s: float | None = None


HERE: Final = Forwarding()
"""The value for a request whose model is on this machine."""
