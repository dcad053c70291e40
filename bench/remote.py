"""Measure what one more server adds to an answer: ``python -m bench.remote [ROUNDS]``.

A script in place of a model makes a token every 10 ms, whose text is the time at which it was made. It is asked itself,
through a Modelyard that names it in ``remote``, and through a second one that names the first. All run in processes of
their own. The model computes nothing, so what is measured is the way alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from bench.systems import free_port, until_healthy

GAP_S: Final = 0.010
TOKENS: Final = 100
STREAMS: Final = (1, 8)


async def run_script(port: int) -> None:
    """Serve the script that stands in for a model, until it is ended."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(TOKENS):
            if number:
                await asyncio.sleep(GAP_S)
            choice = {"index": 0, "delta": {"content": f"{time.monotonic_ns()} "}, "finish_reason": None}
            yield f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode()

    async def answer(http: Request) -> StreamingResponse:
        await http.body()
        return StreamingResponse(chunks(), media_type="text/event-stream")

    async def models(http: Request) -> JSONResponse:
        del http
        return JSONResponse({"object": "list", "data": []})

    routes = [Route("/v1/chat/completions", answer, methods=["POST"]), Route("/v1/models", models)]
    await uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="error")).serve()


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int
    pid: int

    @property
    def cpu_s(self) -> float:
        """Seconds of the processor that it has used. It has no engines, and so no other processes."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(*command: str) -> Iterator[Running]:
    """Run a server for the length of the context; ``{port}`` in its command is its port."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, *(part.format(port=port) for part in command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            until_healthy(process, port)
            yield Running(port, process.pid)
        finally:
            process.terminate()


@contextlib.contextmanager
def modelyard(folder: Path, remote: Running) -> Iterator[Running]:
    """Run a Modelyard that has the model of the server ``remote``."""
    path = folder / f"{remote.port}.toml"
    path.write_text(f'[[models]]\nmodel_id = "m"\nremote = "http://127.0.0.1:{remote.port}/v1"\n', "utf-8")
    with running("-m", "modelyard", "serve", str(path), "--port", "{port}", "--no-supervisor") as server:
        yield server


async def stream(client: httpx2.AsyncClient, port: int) -> tuple[float, list[float]]:
    """Return the seconds to the first text, and from the making of each text to its arrival."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    asked = time.monotonic_ns()
    first, delays = 0.0, []
    async with client.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            now = time.monotonic_ns()
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            for made in (choices[0]["delta"].get("content") or "").split() if choices else ():
                first = first or (now - asked) / 1e9
                delays.append((now - int(made)) / 1e9)
    assert len(delays) == TOKENS, f"{len(delays)} texts in place of {TOKENS}"
    return first, delays


async def measure(servers: dict[str, Running], rounds: int) -> None:
    """Print the times for each way, asked by turns, and the processor's time of the servers."""
    async with httpx2.AsyncClient(trust_env=False, timeout=600) as client:
        for streams in STREAMS:
            firsts: dict[str, list[float]] = {way: [] for way in servers}
            delays: dict[str, list[float]] = {way: [] for way in servers}
            used: dict[str, float] = dict.fromkeys(servers, 0.0)
            for round_ in range(rounds + 1):
                for way, server in servers.items():
                    before = server.cpu_s
                    answers = await asyncio.gather(*(stream(client, server.port) for _ in range(streams)))
                    # The first round opens connections.
                    if round_:
                        used[way] += server.cpu_s - before
                        firsts[way] += [first for first, _ in answers]
                        delays[way] += [delay for _, each in answers for delay in each]
            for way in servers:
                quick = statistics.quantiles(delays[way], n=10)[0]
                print(
                    f"{streams} streams, {way:15} first text {1e3 * min(firsts[way]):6.2f} ms at best, "
                    f"{1e3 * statistics.median(firsts[way]):6.2f} ms; each text {1e3 * quick:6.3f} ms for a tenth, "
                    f"{1e3 * statistics.median(delays[way]):6.3f} ms; "
                    f"processor {1e6 * used[way] / (rounds * streams * TOKENS):6.0f} µs a text"
                )


def main(rounds: int = 5) -> None:
    """Run the servers, and measure."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running("-m", "bench.remote", "script", "{port}") as script,
        modelyard(Path(folder), script) as first,
        modelyard(Path(folder), first) as second,
    ):
        asyncio.run(measure({"direct": script, "one Modelyard": first, "two Modelyards": second}, rounds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["script"]:
        asyncio.run(run_script(int(sys.argv[2])))
    else:
        main(*map(int, sys.argv[1:]))
