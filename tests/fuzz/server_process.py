"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from fuzz.case import Fault
from fuzz.tiny_models import tiny_model
from support.gguf_writer import tiny_ranker

START_S: Final = 1800.0
# Processor time that a request may take, of which to fill the context takes 8 s; and how long one may wait for a server
# that does nothing, or gets nothing done on a busy machine.
HANG_CPU_S: Final = 30.0
HANG_S: Final = 1800.0
_LOOK_S: Final = 0.5
_MAX_READ: Final = 1 << 24
_SHOWN_OF_LOG: Final = 600
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: a method, a path and a body as it is."""

    path: str
    body: bytes
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; status 0: the server closed the connection without an answer."""

    status: int
    body: bytes


@dataclass
class ServerProcess:
    """A server of a text model, a ranker and an encoder, started again after each death.

    Attributes:
        folder: its own.
        weights: the file of the model.
        port: where it listens, once it runs.
    """

    folder: Path
    weights: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    port: int = field(default=0, init=False)

    def send(self, requests: list[Request]) -> list[Reply]:
        """Send requests at the same time, and read their answers.

        Raises:
            Fault: the server ends, or does not answer.
        """
        process = self._running()
        replies: SimpleQueue[tuple[int, Reply]] = SimpleQueue()
        for number, request in enumerate(requests):
            threading.Thread(target=self._exchange, args=(number, request, replies), daemon=True).start()
        found: dict[int, Reply] = {}
        begun, used = time.monotonic(), cpu_of_tree(process.pid)
        while len(found) < len(requests):
            try:
                number, reply = replies.get(timeout=_LOOK_S)
                found[number] = reply
            except Empty:
                pass
            if process.poll() is not None:
                break
            spent, waited = cpu_of_tree(process.pid) - used, time.monotonic() - begun
            if spent > HANG_CPU_S * len(requests) or waited > HANG_S:
                self.close()
                raise Fault(f"no answer after {spent:.0f} s of processor time and {waited:.0f} s")
        if process.poll() is not None:
            raise Fault(f"the server ends with {process.returncode}: {self.last_words()}")
        return [found[number] for number in range(len(requests))]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def last_words(self) -> str:
        """The end of its log."""
        with suppress(OSError):
            return (self.folder / "server.log").read_text("utf-8", "replace")[-_SHOWN_OF_LOG:].replace("\n", " | ")
        return ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = self.folder / "server.toml"
        settings.write_text(
            f"[server]\nport = {self.port}\ndisable_access_log = true\n"
            "[runtime]\nmax_seqs = 4\nprefix_cache_n = 4\ntrial = false\n"
            + _model("smollm2", self.weights)
            + _model("ranker", self._made("ranker.gguf", tiny_ranker()))
            + _model("encoder", self._made("encoder.gguf", tiny_model("bert").content())),
            "utf-8",
        )
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelyard", "from-config", "-f", str(settings), "--no-supervisor"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "GGML_NO_BACKTRACE": "1"},
            )
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                if _exchange(self.port, Request("/health", b"", "GET")).status == 200:
                    return self._process
            time.sleep(_LOOK_S)
        raise Fault(f"the server does not start: {self.last_words()}")

    def _made(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def _exchange(self, number: int, request: Request, replies: SimpleQueue[tuple[int, Reply]]) -> None:
        try:
            replies.put((number, _exchange(self.port, request)))
        except (OSError, http.client.HTTPException) as failure:
            replies.put((number, Reply(0, repr(failure).encode())))


def _model(alias: str, path: Path) -> str:
    """A table of the configuration."""
    length = "max_seq_len = 512" if alias == "smollm2" else ""
    return f'[[models]]\nmodel_id = {json.dumps(str(path))}\nalias = "{alias}"\n[models.device]\n{length}\n'


def cpu_of_tree(pid: int) -> float:
    """Processor time of a process and of those that it started, in seconds. Linux alone has /proc."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, IndexError, ValueError):
            # The name of the program, in brackets, may hold blanks.
            facts = (entry / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(facts[1]), []).append(int(entry.name))
            # utime, stime, and those of children that ended. Source: Linux, proc_pid_stat(5).
            ticks[int(entry.name)] = sum(map(int, facts[11:15]))
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        total += ticks.get(one, 0)
        waiting.extend(parents.get(one, ()))
    return total / _TICKS


def _exchange(port: int, request: Request) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)
    try:
        connection.request(request.method, request.path, request.body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return Reply(answer.status, answer.read(_MAX_READ))
    finally:
        connection.close()
