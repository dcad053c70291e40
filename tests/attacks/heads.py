"""Heads, trailers and chunks without end, before any key was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count, repeat
from typing import Final

from attacks.sockets import connected, post

MIB: Final = 1 << 20
SENT: Final = 100 * MIB
_PIECE: Final = b"a" * (1 << 16)


def _pieces(first: bytes, piece: bytes = _PIECE) -> Iterator[bytes]:
    yield first
    yield from repeat(piece, SENT // len(piece))


def _lines() -> Iterator[bytes]:
    yield b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    for number in count():
        yield b"".join(b"x-%d-%d: a\r\n" % (number, line) for line in range(4096))
        if number * 4096 * 12 > SENT:
            return


_CHUNKED: Final = post("/v1/chat/completions", "Transfer-Encoding: chunked")

HEADS: Final[Mapping[str, Callable[[], Iterator[bytes]]]] = {
    "lines without end": _lines,
    "a line without end": lambda: _pieces(b"GET /health HTTP/1.1\r\nHost: localhost\r\nx-long: "),
    "a name without end": lambda: _pieces(b"GET /health HTTP/1.1\r\nHost: localhost\r\n"),
    "a URL without end": lambda: _pieces(b"GET /"),
    "a method without end": lambda: _pieces(b"A"),
    "an empty line after the other": lambda: _pieces(b"", b"\r\n" * (1 << 15)),
    "trailers without end": lambda: _pieces(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-trailer: a\r\n" * 4096),
    "a trailer without end": lambda: _pieces(_CHUNKED + b"2\r\n{}\r\n0\r\nx-trailer: "),
    "an extension of a chunk without end": lambda: _pieces(_CHUNKED + b"2;a="),
    "a size of a chunk without end": lambda: _pieces(_CHUNKED, b"0" * (1 << 16)),
    "chunks of one byte": lambda: _pieces(_CHUNKED, b"1\r\na\r\n" * 8192),
    "requests one behind the other": lambda: _pieces(b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1024),
    "a body behind the answer": lambda: _pieces(post("/nothing/here", f"Content-Length: {SENT}")),
}


async def send_head(url: str, pieces: Iterator[bytes]) -> tuple[int, int]:
    """How many bytes the server took, and the status of its answer; 0 for none."""
    async with connected(url) as connection:
        taken = await connection.send_all(pieces)
        return taken, await connection.status()
