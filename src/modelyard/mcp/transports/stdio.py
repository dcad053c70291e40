"""The transport of a server that is a program: a message a line on its standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import anyio
from mcp.shared.message import SessionMessage

from modelyard.config import McpServer
from modelyard.mcp.secrets import secrets_of
from modelyard.mcp.transports.child import Child, start_child
from modelyard.mcp.transports.lines import LineSplitter, LongLine
from modelyard.mcp.transports.messages import read_message
from modelyard.mcp.transports.stderr_log import log_stderr
from modelyard.mcp.transports.throttle import Throttle

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams

MAX_FOREIGN_LINES: Final = 1000
"""Lines on standard output that are no message: some programs print a greeting, and none prints a book."""

_READ_BYTES: Final = 64 * 1024
_END_S: Final = 3.0


class NotMcp(Exception):
    """A program writes other things than messages."""


@asynccontextmanager
async def stdio_transport(server: McpServer) -> AsyncIterator[TransportStreams]:
    """Enter with the streams of messages from and to a program, which runs as long as the context.

    Raises:
        OSError: the program's working directory cannot be used.
        ConnectionError: the program has ended; the message says why.
    """
    child = start_child(server)
    tasks: list[asyncio.Task[None]] = []
    inbound: MemoryObjectSendStream[SessionMessage | Exception]
    inbound, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outbound = anyio.create_memory_object_stream[SessionMessage](0)
    stdin: asyncio.StreamWriter | None = None
    transports: list[asyncio.BaseTransport] = []
    try:
        stdout, transport = await _reader(child.process.stdout)
        transports.append(transport)
        stderr, transport = await _reader(child.process.stderr)
        transports.append(transport)
        stdin = await _writer(child.process.stdin)
        logging = asyncio.create_task(log_stderr(server.name, child, stderr, secrets_of(server)))
        reading = asyncio.create_task(_read(stdout, inbound, child, logging))
        tasks += [logging, reading, asyncio.create_task(_write(outbound, stdin, inbound, reading))]
        yield read_stream, write_stream
    finally:
        await _end(child, stdin, tasks, transports)
        for stream in (inbound, read_stream, write_stream, outbound):
            stream.close()


async def _end(
    child: Child,
    stdin: asyncio.StreamWriter | None,
    tasks: list[asyncio.Task[None]],
    transports: list[asyncio.BaseTransport],
) -> None:
    """End the program. Its input ends first, so that it can end by itself; its output is read meanwhile."""
    for task in tasks[2:]:
        task.cancel()
    if stdin is None:
        if child.process.stdin is not None:
            child.process.stdin.close()
    elif not stdin.transport.is_closing():
        # Not close(), which would first wait for a program that reads nothing.
        stdin.transport.abort()
    try:
        await child.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in transports:
            transport.close()
        for pipe in (child.process.stdout, child.process.stderr):
            if pipe is not None and not transports:
                pipe.close()


async def _read(
    stdout: asyncio.StreamReader,
    inbound: MemoryObjectSendStream[SessionMessage | Exception],
    child: Child,
    logging: asyncio.Task[None],
) -> None:
    """Pass on the messages of the program until it ends; then the session is over."""
    lines, throttle, foreign = LineSplitter(), Throttle(), 0
    try:
        while data := await stdout.read(_READ_BYTES):
            for line in lines.feed(data):
                message = read_message(line)
                if message is not None:
                    await throttle.count()
                    await inbound.send(message)
                elif isinstance(line, LongLine) or line.strip():
                    foreign += 1
                    if foreign > MAX_FOREIGN_LINES:
                        raise NotMcp("its program writes other things than MCP messages on its standard output")
        # Its last output has the reason for its end.
        await asyncio.wait((logging,), timeout=1)
    except NotMcp as error:
        child.last_lines.append(str(error))
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        # The session is over. The rest is read, so that the program is not stuck where it writes it.
        while await stdout.read(_READ_BYTES):
            pass
        return
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await inbound.send(ConnectionError(await child.reason()))
    inbound.close()


async def _write(
    outbound: MemoryObjectReceiveStream[SessionMessage],
    stdin: asyncio.StreamWriter,
    inbound: MemoryObjectSendStream[SessionMessage | Exception],
    reading: asyncio.Task[None],
) -> None:
    try:
        async for message in outbound:
            stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()
    except OSError:
        # It does not read any more. The reason is in its output, or else the session must learn of the end this way.
        await asyncio.wait((reading,), timeout=_END_S)
        inbound.close()


async def _reader(pipe: IO[Any] | None) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_READ_BYTES, loop=loop)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe)
    return reader, transport


async def _writer(pipe: IO[Any] | None) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    protocol = asyncio.streams.FlowControlMixin(loop=loop)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)
