"""The description of a server and of its models."""

from __future__ import annotations

from typing import Any, Final

from modelyard.cli.client.connection import ServerAddress, get
from modelyard.errors import NotModelyard, ServerRefused

STATE_S: Final = 10.0
"""Seconds within which a server answers with its description, for which it computes nothing."""


def server_state(address: ServerAddress, *, within_s: float = STATE_S) -> dict[str, Any]:
    """Return the answer of ``GET /v1/server``, see ``answers``.

    Raises:
        ServerUnreachable, NotModelyard, ServerRefused: see ``connection.get``.
    """
    try:
        return get(address, "/v1/server", within_s=within_s)
    except ServerRefused as error:
        if error.server_code == "not_found":
            raise NotModelyard(address.url, "answered 404 Not Found, or it is of an earlier version") from error
        raise
