"""The end of a session with an MCP server."""

from __future__ import annotations


class SessionLost(Exception):
    """The session has ended, or cannot be opened or used any more; the message says why."""
