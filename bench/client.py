"""A client that costs little: it shares the cores with the servers that it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """When a stream's tokens came, in seconds of ``time.perf_counter``.

    Attributes:
        began, first, last: of the request, of its first and of its last token.
        tokens: what the server counted, or the frames where it does not count.
        gaps: seconds between one frame and the next.
    """

    began: float
    first: float
    last: float
    tokens: int
    gaps: tuple[float, ...] = ()

    @property
    def first_token_s(self) -> float:
        """From the request to the first token."""
        return self.first - self.began

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of decode: after the first token."""
        return (self.tokens - 1) / (self.last - self.first)


async def complete(port: int, model: str, prompt: str, tokens: int, fields: Mapping[str, Any]) -> Answer:
    """Stream a completion of so many tokens, greedy unless ``fields`` say otherwise.

    A ``response_format`` makes it a chat, because servers take that field there; its answer may end earlier.

    Raises:
        RuntimeError: the server refuses it, or ends the stream early.
    """
    body = {
        "model": model,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    is_chat = "response_format" in fields
    if is_chat:
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body |= {"prompt": prompt, "ignore_eos": True}
    raw = json.dumps(body).encode()
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
    head = f"POST /v1/{'chat/' if is_chat else ''}completions HTTP/1.1\r\n{fields}\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + raw)
        status = await reader.readline()
        if b" 200 " not in status:
            rest = await reader.read(2000)
            raise RuntimeError(f"{status.decode().strip()}: {rest.decode(errors='replace')[-300:]}")
        return await _read(reader, began)
    finally:
        writer.close()


# What is in a frame that has no text.
_EMPTY = (b'"text":""', b'"choices":[]', b'"content":""', b'"content":null', b'"delta":{}')


async def _read(reader: asyncio.StreamReader, began: float) -> Answer:
    frames, counted, first, last = 0, 0, 0.0, 0.0
    gaps: list[float] = []
    async for line in reader:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            if line.startswith(b"data: [DONE]"):
                return Answer(began, first, last, counted or frames, tuple(gaps))
            continue
        if b'"error"' in line[:20]:
            raise RuntimeError(line.decode())
        usage = line.find(b'"completion_tokens":')
        if usage >= 0:
            digits = line[usage + 20 : usage + 32].lstrip()
            counted = int(digits[: next(at for at, byte in enumerate(digits) if not 48 <= byte <= 57)])
        if not any(empty in line for empty in _EMPTY):
            now = time.perf_counter()
            if first:
                gaps.append(now - last)
            frames, last = frames + 1, now
            first = first or now
    raise RuntimeError("the stream ended without [DONE]")
