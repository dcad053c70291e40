"""The systems that are measured, as processes that are asked for completions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench.client import Answer, complete

HERE = Path(__file__).parent
CONTEXT = 8192
START_S = 120.0
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class System(Protocol):
    """Something that completes text. Several prompts are asked at once; model is an index."""

    async def ask(self, prompts: Sequence[str], tokens: int, model: int = 0, **fields: Any) -> list[Answer]:
        """The answers, in order. The fields go into each request."""


class Http:
    """A server, or several, that speak OpenAI's completions.

    Attributes:
        models: (port, name) of each.
        pid: of the server, where it is one process.
    """

    def __init__(self, models: Sequence[tuple[int, str]], pid: int = 0) -> None:
        self.models, self.pid = models, pid

    async def ask(self, prompts: Sequence[str], tokens: int, model: int = 0, **fields: Any) -> list[Answer]:
        """The answers, in order. The fields go into each request."""
        port, name = self.models[model]
        return await asyncio.gather(*(complete(port, name, prompt, tokens, fields) for prompt in prompts))


class Lines:
    """A process that answers one JSON line with one: the bare loop, all prompts at once; others one by one."""

    def __init__(self, process: subprocess.Popen[str], *, is_batched: bool) -> None:
        self._process, self._is_batched = process, is_batched

    async def ask(self, prompts: Sequence[str], tokens: int, model: int = 0, **fields: Any) -> list[Answer]:
        """The answers, in order. The fields go into each request."""
        if model:
            raise RuntimeError("It holds one model.")
        if fields:
            raise RuntimeError("It is greedy.")
        if self._is_batched:
            return [await asyncio.to_thread(self._ask, {"prompts": list(prompts), "tokens": tokens})] * len(prompts)
        if len(prompts) > 1:
            raise RuntimeError("It answers one request at a time.")
        return [await asyncio.to_thread(self._ask, {"prompt": prompts[0], "tokens": tokens})]

    def _ask(self, what: Mapping[str, object]) -> Answer:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return Answer(**json.loads(_line(self._process)))


@contextmanager
def modelyard(
    folder: Path,
    weights: Sequence[Path],
    *,
    prompt_lookup: bool,
    budget: str = "",
    isolation: str = "auto",
    context: int = CONTEXT,
) -> Iterator[Http]:
    """One Modelyard with all models."""
    port = free_port()
    models = "\n".join(
        f'[[models]]\nmodel_id = "{path}"\nalias = "{number}"\nload = "{"on-demand" if budget else "startup"}"\n'
        f"device = {{ max_seq_len = {context} }}\n"
        for number, path in enumerate(weights)
    )
    toml = folder / f"modelyard-{port}.toml"
    toml.write_text(
        f"[server]\nport = {port}\n[runtime]\nmax_seqs = 8\nprefix_cache_n = 8\n"
        f'prompt_lookup = {str(prompt_lookup).lower()}\nisolation = "{isolation}"\n'
        + (f'[memory]\nbudget = "{budget}"\n' if budget else "")
        + models
    )
    command = [sys.executable, "-m", "modelyard", "from-config", "-f", str(toml), "--no-supervisor"]
    with server_process(command, port) as pid:
        yield Http([(port, str(number)) for number in range(len(weights))], pid)


@contextmanager
def llama_server(program: Path, weights: Sequence[Path]) -> Iterator[Http]:
    """llama.cpp's server, one process a model."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(llama_server_process(program, path)) for path in weights]
        yield Http([(port, "default") for port in ports])


@contextmanager
def llama_server_process(program: Path, path: Path) -> Iterator[int]:
    """One llama.cpp server; its port."""
    port = free_port()
    with server_process([str(program), "-m", str(path), *llama_server_options(port, CONTEXT)], port):
        yield port


def llama_server_options(port: int, context: int, sequences: int = 8) -> list[str]:
    """The options of llama.cpp's server, as Modelyard is configured here."""
    sizes = ["-c", str(context), "-np", str(sequences), "--kv-unified"]
    return ["--port", str(port), "-t", str(THREADS), "--no-webui", *sizes]


@contextmanager
def llama_cpp_python(python: Path, weights: Sequence[Path]) -> Iterator[Http]:
    """The server of llama-cpp-python: one request at a time."""
    port = free_port()
    command = [str(python), "-m", "llama_cpp.server", "--model", str(weights[0]), "--port", str(port)]
    options = ["--n_ctx", str(CONTEXT), "--n_threads", str(THREADS), "--interrupt_requests", "false"]
    with server_process([*command, *options], port):
        yield Http([(port, "default")])


@contextmanager
def bare_loop(weights: Path) -> Iterator[Lines]:
    """llama.cpp in a loop, without anything around it."""
    command = [sys.executable, str(HERE / "servers/bare_loop.py"), str(weights), str(CONTEXT), str(THREADS)]
    with _lines(command) as process:
        yield Lines(process, is_batched=True)


@contextmanager
def mistralrs(python: Path, weights: Path) -> Iterator[Lines]:
    """The reference, in process."""
    with _lines([str(python), str(HERE / "servers/mistralrs_runner.py"), str(weights)]) as process:
        yield Lines(process, is_batched=False)


@contextmanager
def server_process(command: Sequence[str], port: int, **environment: str) -> Iterator[int]:
    """A server, from when it answers until it has ended; its process."""
    # A file, because a pipe that nobody reads stops its writer.
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=said, text=True, env={**os.environ, **environment}
        ) as process,
    ):
        try:
            until_healthy(process, port)
            yield process.pid
        except RuntimeError as error:
            said.seek(0)
            raise RuntimeError(f"{error}: {said.read()[-300:].strip()}") from error
        finally:
            process.kill()


@contextmanager
def _lines(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            if not _line(process):
                raise RuntimeError(f"{Path(command[1]).name} did not start")
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    """The next line of JSON, "" at the end: a library may log where it is to speak."""
    assert process.stdout is not None
    return next((line for line in process.stdout if line.startswith("{")), "")


def until_healthy(process: subprocess.Popen[str], port: int) -> None:
    """Wait until a server answers; RuntimeError where it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("it ended at once")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if b" 200 " in connection.recv(64):
                return
        time.sleep(0.02)
    raise RuntimeError(f"it does not answer within {START_S:.0f} s")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
