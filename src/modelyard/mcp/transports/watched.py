"""Reports errors and the end of a transport's messages, which the SDK's sessions report late or never."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams


@asynccontextmanager
async def watched(
    transport: AbstractAsyncContextManager[TransportStreams], lost: Callable[[Exception], None]
) -> AsyncIterator[TransportStreams]:
    """Enter ``transport``, and call ``lost`` with its errors, and when its messages end while it is open."""
    async with transport as (read_stream, write_stream):
        yield _Watched(read_stream, lost), write_stream


class _Watched:
    """A stream of messages, whose end is reported.

    Args:
        inner: the stream.
        lost: takes the report.
    """

    def __init__(self, inner: Any, lost: Callable[[Exception], None]) -> None:
        self._inner, self._lost = inner, lost

    @property
    def last_context(self) -> Any:
        """The context in which the last message was sent, which the SDK reads."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Any:
        """Return the next message."""
        return await self._inner.receive()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            message = await self._inner.__anext__()
        except StopAsyncIteration:
            self._lost(ConnectionError("the server has closed the connection"))
            raise
        if isinstance(message, Exception):
            # At once, because the session passes it on later than the end that follows.
            self._lost(message)
        return message

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)
