"""A call of an MCP server, whose failures are results that the model reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from modelyard.agent.tools import ToolResult
from modelyard.mcp.lost import SessionLost
from modelyard.mcp.reasons import reason_of
from modelyard.mcp.results import failed


async def bounded_call(
    server: str, timeout_s: float, secrets: Sequence[str], result: Awaitable[ToolResult]
) -> ToolResult:
    """Return the result of a call. What goes wrong is a result with ``is_error``.

    Args:
        server: its name, for that result.
        timeout_s: after which the call is given up.
        secrets: of the server.
        result: makes the call.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await result
    except TimeoutError:
        return failed(f"The call was given up after {timeout_s:g} s: the MCP server {server} did not answer.")
    except SessionLost as lost:
        return failed(f"The connection to the MCP server {server} was lost during the call: {lost}.")
    except Exception as error:  # noqa: BLE001 (whatever a server makes of a call is its result)
        return failed(f"The call of the MCP server {server} failed: {reason_of(error, secrets)}.")
