"""Reads messages of servers, and answers those that cannot be read in their place, so that no call waits for them."""

from __future__ import annotations

import json

from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from modelyard.mcp.transports.lines import LongLine, answered_id
from modelyard.system.quantities import size_text


def read_message(line: bytes | LongLine) -> SessionMessage | None:
    """Return the message in a line; for an answer that cannot be read, an error; None for other text."""
    if isinstance(line, LongLine):
        return _unreadable(line.id, f"The answer has {size_text(line.size)}, which is too long.")
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        pass
    try:
        # Pydantic's own parser refuses what nests deeper than 200 levels, which is no fault of the protocol.
        return SessionMessage(jsonrpc_message_adapter.validate_python(json.loads(line), by_name=False))
    except (ValueError, RecursionError):
        return _unreadable(answered_id(line, line), "The answer cannot be read.")


def _unreadable(request: int | None, why: str) -> SessionMessage | None:
    if request is None:
        return None
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request, error=ErrorData(code=INTERNAL_ERROR, message=why)))
