"""The transport over WebSocket: a message a frame. The SDK has none, and many servers have.

Source: the former ``mcp.client.websocket`` of the SDK, version 1, whose subprotocol is ``mcp``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
from mcp.shared.message import SessionMessage
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from modelyard.mcp.transports.lines import MAX_MESSAGE_BYTES
from modelyard.mcp.transports.messages import read_message
from modelyard.mcp.transports.throttle import Throttle

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams

_SUBPROTOCOL: Final = Subprotocol("mcp")
_PING_S: Final = 20.0
_CLOSE_S: Final = 2.0
_QUEUED_FRAMES: Final = 4


@asynccontextmanager
async def websocket_transport(url: str, headers: Mapping[str, str]) -> AsyncIterator[TransportStreams]:
    """Enter with the streams of messages from and to the server at a ``ws`` or ``wss`` URL.

    Raises:
        OSError, websockets.exceptions.WebSocketException: it cannot be connected.
    """
    inbound: MemoryObjectSendStream[SessionMessage | Exception]
    inbound, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outbound = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with connect(
            url,
            subprotocols=[_SUBPROTOCOL],
            additional_headers=dict(headers),
            # Compressed frames could unfold to any size.
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=_QUEUED_FRAMES,
            ping_interval=_PING_S,
            ping_timeout=_PING_S,
            close_timeout=_CLOSE_S,
        ) as socket:
            tasks = (
                asyncio.create_task(_read(socket, inbound)),
                asyncio.create_task(_write(outbound, socket, inbound)),
            )
            try:
                yield read_stream, write_stream
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for stream in (inbound, read_stream, write_stream, outbound):
            stream.close()


async def _read(socket: ClientConnection, inbound: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    throttle = Throttle()
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        try:
            async for frame in socket:
                await throttle.count()
                message = read_message(frame.encode() if isinstance(frame, str) else frame)
                if message is not None:
                    await inbound.send(message)
        except ConnectionClosed as closed:
            await inbound.send(ConnectionError(f"the connection was closed: {closed}"))
        else:
            await inbound.send(ConnectionError("the server has closed the connection"))
    inbound.close()


async def _write(
    outbound: MemoryObjectReceiveStream[SessionMessage],
    socket: ClientConnection,
    inbound: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    try:
        async for message in outbound:
            await socket.send(message.message.model_dump_json(by_alias=True, exclude_unset=True))
    except ConnectionClosed:
        inbound.close()
