"""Random heads of requests, right but for a few places, in pieces: the server answers, closes or waits, and goes on."""

from __future__ import annotations

import random
import socket
from typing import Final

from fuzz.case import Ending, Fault, Place
from fuzz.messages import server_of
from fuzz.server_process import Request

ANSWER_S: Final = 60.0
SILENCE_S: Final = 1.0
"""After which a server that says nothing waits for the rest of a request."""
_MAX_READ: Final = 1 << 20
_BODY: Final = b'{"model":"smollm2","prompt":"a","max_tokens":1}'

_METHODS: Final = (b"GET", b"POST", b"PUT", b"OPTIONS", b"HEAD", b"get", b"CONNECT", b"PRI", b"G\0T", b"", b"A" * 300)
_TARGETS: Final = (
    b"/health", b"/v1/models", b"/v1/completions", b"/", b"*", b"//", b"/%", b"/%00", b"/\xff", b"/?" + b"a=b&" * 50,
    b"http://localhost/health", b"http://[/health", b"localhost:80", b"/" + b"a" * 20_000, b"", b"/a b", b"/../health",
)  # fmt: skip
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"", b"HTTP/1.1 ")
_NAMES: Final = (
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"Content-Type", b"Origin",
    b"Authorization", b"X-Forwarded-For", b"Content-Encoding", b"Cookie", b"TE", b"Trailer", b"x", b"", b" x", b"x:y",
    b"Sec-Fetch-Site", b"X-Request-Id", b"Prefer", b"X-Priority", b"\xff", b"a\0b", b"A" * 5000,
)  # fmt: skip
_VALUES: Final = (
    b"localhost", b"evil.example", b"0", b"5", b"-1", b"99999999999999999999", b"0x10", b"5, 5", b"chunked", b"gzip",
    b"chunked, chunked", b"close", b"keep-alive", b"upgrade", b"100-continue", b"h2c", b"websocket", b"", b"\xff\xfe",
    b"application/json", b"null", b"cross-site", b"http://localhost", b"\t", b"a\rb", b"a\0b", b"a" * 70_000, b"wait=0",
)  # fmt: skip
_SIZES: Final = (b"-1", b"zz", b"ffffffffffffffffff", b"0" * 500, b"")
_LAST_CHUNKS: Final = (b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"0\r\n", b"", b"0;a\r\n\r\n")
_ENDS: Final = (b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n ", b"\r\n\r\n")


def play_head(seed: int, place: Place) -> Ending:
    """One connection with one to three requests on it; the server answers an honest client behind it."""
    rng = random.Random(f"heads {seed}")
    sent = b"".join(random_message(rng) for _ in range(rng.choice((1, 1, 2, 3))))
    server = server_of(place)
    # It starts, where it does not run.
    server.send([Request("/health", b"", "GET")])
    answered = exchange(server.port, sent, rng)
    [reply] = server.send([Request("/v1/completions", _BODY)])
    if reply.status != 200:
        raise Fault(f"{sent[:500]!r}: the next has {reply.status} {reply.body[:300]!r}")
    if answered.startswith(b"HTTP/1.1 5") and not answered.startswith((b"HTTP/1.1 501", b"HTTP/1.1 505")):
        raise Fault(f"{sent[:500]!r}: {answered[:500]!r}")
    if answered and not answered.startswith(b"HTTP/1."):
        raise Fault(f"{sent[:500]!r}: no HTTP: {answered[:200]!r}")
    if not answered:
        return Ending("not answered")
    return Ending("answered" if answered.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")) else "refused")


def random_message(rng: random.Random) -> bytes:
    """A request that is honest but for a few places."""
    body = rng.choice((b"", _BODY))
    lines = [b" ".join((rng.choice(_METHODS[:4]), rng.choice(_TARGETS[:4]), b"HTTP/1.1")), b"Host: localhost"]
    if body:
        lines = [b"POST /v1/completions HTTP/1.1", b"Host: localhost", b"Content-Type: application/json"]
        lines.append(b"Content-Length: %d" % len(body))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        match rng.randrange(5):
            case 0:
                lines[0] = b" ".join((rng.choice(_METHODS), rng.choice(_TARGETS), rng.choice(_VERSIONS)))
            case 1:
                lines.append(rng.choice(_NAMES) + rng.choice((b": ", b":", b" : ", b"")) + rng.choice(_VALUES))
            case 2:
                lines += [b"x-%d: a" % number for number in range(rng.choice((3, 99, 120, 3000)))]
            case 3:
                del lines[rng.randrange(len(lines))]
                lines = lines or [b""]
            case _:
                lines, body = [*lines, b"Transfer-Encoding: chunked"], _chunked(rng, body)
    return b"".join(line + (rng.choice(_ENDS) if rng.random() < 0.03 else b"\r\n") for line in (*lines, b"")) + body


def _chunked(rng: random.Random, body: bytes) -> bytes:
    """A body in chunks, which may be wrong."""
    size = rng.choice((b"%x" % len(body), b"%x;a=b" % len(body), *_SIZES))
    return size + b"\r\n" + body + b"\r\n" + rng.choice(_LAST_CHUNKS)


def exchange(port: int, sent: bytes, rng: random.Random) -> bytes:
    """What the server answers at first to bytes that come in pieces; b"" where it waits for more, or closes."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
        cuts = (
            sorted(rng.sample(range(1, len(sent)), min(len(sent) - 1, rng.choice((0, 1, 5))))) if len(sent) > 1 else []
        )
        try:
            for start, end in zip((0, *cuts), (*cuts, len(sent)), strict=True):
                connection.sendall(sent[start:end])
            connection.settimeout(SILENCE_S)
            return connection.recv(_MAX_READ)
        except OSError:
            # It waits, or was closed under what was still to be sent.
            return b""
