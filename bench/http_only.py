"""What HTTP costs by itself: an engine that computes nothing, behind all of Modelyard, and behind uvicorn alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench.client import complete
from bench.report import OURS
from bench.systems import HERE, free_port, until_healthy

STREAMS, TOKENS, REQUESTS = 500, 100, 300
HTTP = "HTTP only"
TOKEN, REQUEST = f"{HTTP}, CPU of a token of 500 streams", f"{HTTP}, a request"
UNITS = {TOKEN: "µs", REQUEST: "ms"}
OTHER = "uvicorn alone"


class Server:
    """A server with no model behind it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process, self._port = process, port

    def _cpu_s(self) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline())["cpu_s"])

    async def token_us(self) -> float:
        """Microseconds of processor time for a token of many streams."""
        before = self._cpu_s()
        await asyncio.gather(*(complete(self._port, "0", "A story", TOKENS, {}) for _ in range(STREAMS)))
        return (self._cpu_s() - before) / (STREAMS * TOKENS) * 1e6

    async def request_ms(self) -> float:
        """Milliseconds of a request for one token, on a connection that is open, the median of many."""
        body = json.dumps({"model": "0", "prompt": "A story", "max_tokens": 1}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        raw = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        taken = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            writer.write(raw)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.split(b"\r\n", 1)[0]:
                raise RuntimeError(answer.decode())
            fields = answer.lower()
            start = fields.index(b"content-length:") + 15
            await reader.readexactly(int(fields[start : fields.index(b"\r\n", start)]))
            taken.append(time.perf_counter() - began)
        writer.close()
        return median(taken) * 1e3


@contextmanager
def _server(kind: str, weights: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "bench.servers.http_only", kind, str(port), str(weights)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    ) as process:
        try:
            until_healthy(process, port)
            yield Server(process, port)
        finally:
            process.kill()


async def http_only(weights: Path, repetitions: int) -> dict[str, dict[str, list[float]]]:
    """By workload and system, one number a repetition."""
    measured: dict[str, dict[str, list[float]]] = {name: {OURS: [], OTHER: []} for name in (TOKEN, REQUEST)}
    with ExitStack() as stack:
        servers = {
            OURS: stack.enter_context(_server("modelyard", weights)),
            OTHER: stack.enter_context(_server("uvicorn", weights)),
        }
        for repetition in range(repetitions + 1):
            for system, server in servers.items():
                token, request = await server.token_us(), await server.request_ms()
                if repetition:
                    measured[TOKEN][system].append(token)
                    measured[REQUEST][system].append(request)
    return measured
