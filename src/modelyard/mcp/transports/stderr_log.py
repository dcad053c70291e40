"""What the programs of MCP servers write on standard error, as lines of the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from modelyard.mcp.secrets import without_secrets
from modelyard.mcp.transports.child import Child
from modelyard.mcp.transports.lines import LineSplitter, LongLine
from modelyard.system.printable import printable

logger = logging.getLogger("modelyard.mcp.servers")

MAX_LINE_CHARS: Final = 500
MAX_LINES_PER_MINUTE: Final = 120
"""Lines of one server; further ones are counted."""

_MAX_LINE_BYTES: Final = 64 * 1024
_PERIOD_S: Final = 60.0


async def log_stderr(name: str, child: Child, stderr: asyncio.StreamReader, secrets: Sequence[str]) -> None:
    """Log what a server writes, until it ends."""
    lines = LineSplitter(_MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    since, count = loop.time(), 0
    while data := await stderr.read(_MAX_LINE_BYTES):
        if loop.time() - since >= _PERIOD_S:
            if count > MAX_LINES_PER_MINUTE:
                logger.warning("MCP server %s: %d more lines were left out", name, count - MAX_LINES_PER_MINUTE)
            since, count = loop.time(), 0
        for line in lines.feed(data):
            if isinstance(line, LongLine) or not line.strip():
                continue
            text = printable(without_secrets(line.decode("utf-8", "replace").rstrip(), secrets), MAX_LINE_CHARS)
            child.last_lines.append(text)
            count += 1
            if count <= MAX_LINES_PER_MINUTE:
                logger.info("MCP server %s: %s", name, text)
