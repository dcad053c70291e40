"""A server of fastmcp: ``python fastmcp_peer.py http|sse PORT``."""

import asyncio
import sys

from fastmcp import Context, FastMCP

server = FastMCP("fast")


@server.tool(annotations={"readOnlyHint": True})
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool
def fail() -> str:
    """Fail."""
    raise ValueError("it cannot be done")


@server.tool
async def slow(context: Context, seconds: float = 1.0) -> str:
    """Take some time."""
    for step in range(3):
        await context.report_progress(step, 3, f"step {step}")
        await asyncio.sleep(seconds / 3)
    return "done"


@server.tool
def large(size: int) -> str:
    """Return a text of that size."""
    return "x" * size


@server.tool
def headers() -> dict[str, str]:
    """Return the headers of the request."""
    from fastmcp.server.dependencies import get_http_headers

    return get_http_headers(include_all=True)


@server.resource("note://one")
def note() -> str:
    """A note."""
    return "the note"


if __name__ == "__main__":
    server.run(transport=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]), show_banner=False)
