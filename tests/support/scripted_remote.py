"""A server of a language model whose answers a test writes, byte by byte, on the event loop of the test.

    async with scripted_remote(says("Hello", " world")) as remote:
        ...                      # remote.url is its base URL; remote.asked has what it was asked

Each request for an answer takes the next of the scripts; the last one answers all that come later. Probes, which ask
for ``/models``, are answered as long as ``answers_probes`` is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: Any


class Answering:
    """The way back to a client."""

    def __init__(self, writer: asyncio.StreamWriter, asked: Asked) -> None:
        self._writer, self.asked = writer, asked
        self.is_cut = False

    async def head(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self._write("\r\n".join([*lines, "", ""]).encode())

    async def send(self, data: bytes) -> None:
        """Send a part of the body."""
        await self._write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, value: Any) -> None:
        """Send an event, as JSON unless it is a text."""
        await self.send(f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode())

    async def end(self) -> None:
        await self._write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection at once."""
        self.is_cut = True
        self._writer.transport.abort()

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()


Script = Callable[[Answering], Awaitable[None]]


@dataclass
class ScriptedRemote:
    """A server, and what it was asked; probed is set once a probe was answered."""

    url: str
    scripts: list[Script]
    asked: list[Asked] = field(default_factory=list)
    answers_probes: bool = True
    connections: int = 0
    probed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await _read(reader)
                answering = Answering(writer, asked)
                if asked.path.endswith("/models"):
                    if not self.answers_probes:
                        answering.cut()
                        return
                    await answering.head(kind="application/json")
                    await answering.send(b"{}")
                    await answering.end()
                    self.probed.set()
                    continue
                self.asked.append(asked)
                await (self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])(answering)
                if answering.is_cut:
                    return
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(head[0].split(" ")[1], headers, json.loads(body) if body else None)


@contextlib.asynccontextmanager
async def scripted_remote(*scripts: Script) -> AsyncIterator[ScriptedRemote]:
    """Serve ``scripts`` for the length of the context."""
    remote = ScriptedRemote("", list(scripts))
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(remote.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    remote.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield remote
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chunk(text: str | None = None, reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    content = {} if text is None else {"content": text}
    return {"object": "chat.completion.chunk", "choices": [{"delta": content | delta, "finish_reason": reason}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


def says(*texts: str, reason: str = "stop", has_usage: bool = True) -> Script:
    """The texts as a stream, complete."""

    async def script(answering: Answering) -> None:
        await answering.head()
        await answering.event(chunk(role="assistant"))
        for text in texts:
            await answering.event(chunk(text))
        await answering.event(chunk(reason=reason))
        if has_usage:
            await answering.event(USAGE)
        await answering.event("[DONE]")
        await answering.end()

    return script


def sends(*events: Any) -> Script:
    """The events as a stream, as they are."""

    async def script(answering: Answering) -> None:
        await answering.head()
        for event in events:
            await answering.event(event)
        await answering.end()

    return script


def refuses(status: int, body: Any, **headers: str) -> Script:
    """An error, or another answer that is no stream."""

    async def script(answering: Answering) -> None:
        await answering.head(status, "application/json", **headers)
        await answering.send(body if isinstance(body, bytes) else json.dumps(body).encode())
        await answering.end()

    return script


def breaks(*texts: str) -> Script:
    """The texts, behind which the connection is cut."""

    async def script(answering: Answering) -> None:
        if texts:
            await answering.head()
            for text in texts:
                await answering.event(chunk(text))
        answering.cut()

    return script


async def hangs(answering: Answering) -> None:
    """Nothing, for longer than anybody waits."""
    del answering
    await asyncio.sleep(3 * WAIT_S)
