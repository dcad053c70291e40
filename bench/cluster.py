"""Measure what a cluster adds to an answer: ``python -m bench.cluster [--rounds N] [--real]``.

A front and one node on a Ray cluster of this machine, against the same server alone. The engine of both computes
nothing: it makes 20 tokens a second for each sequence, whose text is the time at which each was made. With ``--real``
it is that of SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from bench.client import complete
from bench.files import ROOT, story, weights
from bench.systems import free_port, until_healthy

KINDS: Final = ("alone", "cluster")
STREAMS: Final = (1, 16, 64)
REAL_STREAMS: Final = (1, 8)
TOKENS: Final = 60
PROBES: Final = 20
END_S: Final = 30.0


@contextmanager
def server(kind: str, file: str, engine: str) -> Iterator[int]:
    """Run a server for the length of the context; its port."""
    port = free_port()
    command = [sys.executable, "-m", "bench.servers.timed", kind, str(port), file, engine]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
        try:
            until_healthy(process, port)
            yield port
        finally:
            if kind == "cluster":
                # Its Ray cluster ends with it, not when it is killed.
                process.communicate(timeout=END_S)
            else:
                process.kill()


async def delays(port: int, tokens: int) -> tuple[float, list[float]]:
    """Return the seconds to the first text of a stream, and those from the making of each text to its arrival."""
    body = json.dumps({"model": "0", "prompt": "A story", "max_tokens": tokens, "stream": True}).encode()
    head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    asked = time.monotonic_ns()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    first, found = 0.0, []
    try:
        writer.write(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n".encode() + body)
        async for line in reader:
            now = time.monotonic_ns()
            if line.startswith(b"data: [DONE]"):
                break
            _, _, text = line.partition(b'"text":" ')
            # Texts that arrive together are one frame.
            for made in text.partition(b'"')[0].split():
                first = first or (now - asked) / 1e9
                found.append((now - int(made)) / 1e9)
    finally:
        writer.close()
    if len(found) != tokens:
        raise RuntimeError(f"{len(found)} texts in place of {tokens}")
    return first, found


async def probe(port: int, streams: int) -> tuple[list[float], list[float]]:
    """Return seconds to the first token of requests for one, beside so many streams, and the delays of those."""
    running = [asyncio.create_task(delays(port, TOKENS)) for _ in range(streams)]
    firsts = []
    for _ in range(PROBES):
        firsts.append((await delays(port, 1))[0])
        await asyncio.sleep(0.05)
    return firsts, [delay for task in running for delay in (await task)[1]]


def shown(name: str, values: list[float]) -> str:
    """Return the median and the ninth decile in milliseconds."""
    deciles = statistics.quantiles(values, n=10)
    return f"{name} {1e3 * statistics.median(values):7.2f} ms, nine of ten below {1e3 * deciles[8]:7.2f} ms"


async def measure(ports: dict[str, int], rounds: int) -> None:
    """Print the times of both, asked by turns."""
    for streams in STREAMS:
        firsts: dict[str, list[float]] = {kind: [] for kind in ports}
        tokens: dict[str, list[float]] = {kind: [] for kind in ports}
        for round_ in range(rounds + 1):
            for kind, port in ports.items():
                first, each = await probe(port, streams)
                # The first round warms up.
                if round_:
                    firsts[kind] += first
                    tokens[kind] += each
        for kind in ports:
            print(f"{streams:3} streams, {kind:8} {shown('first token', firsts[kind])}; {shown('token', tokens[kind])}")


async def measure_real(ports: dict[str, int], rounds: int) -> None:
    """Print the times of an engine that computes, asked by turns: one alone works at a time."""
    for streams in REAL_STREAMS:
        firsts: dict[str, list[float]] = {kind: [] for kind in ports}
        rates: dict[str, list[float]] = {kind: [] for kind in ports}
        for round_ in range(rounds + 1):
            for kind, port in ports.items():
                prompts = [story(100 * round_ + number) for number in range(streams)]
                answers = await asyncio.gather(*(complete(port, "0", prompt, TOKENS, {}) for prompt in prompts))
                if round_:
                    firsts[kind] += [answer.first_token_s for answer in answers]
                    rates[kind] += [1 / answer.tokens_per_s for answer in answers]
        for kind in ports:
            first, token = statistics.median(firsts[kind]), statistics.median(rates[kind])
            print(f"{streams:3} streams, {kind:8} first token {1e3 * first:7.1f} ms; a token {1e3 * token:6.2f} ms")


def main() -> None:
    """Run the servers, and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--real", action="store_true", help="with an engine that computes")
    options = parser.parse_args()
    file = str(weights(ROOT / ".bench")[0])
    with ExitStack() as stack:
        engine = "real" if options.real else "scripted"
        ports = {kind: stack.enter_context(server(kind, file, engine)) for kind in KINDS}
        asyncio.run((measure_real if options.real else measure)(ports, options.rounds))


if __name__ == "__main__":
    main()
