"""A server of modelyard that scripts start with a configuration, ask over HTTP, and end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODELYARD = (sys.executable, "-P", "-m", "modelyard")
PROMPT = "Count from one to ten."
MAX_START_S = 120.0
MAX_STOP_S = 20.0
MAX_ANSWER_S = 60.0


class CheckFailed(Exception):
    """A check failed; the message says how."""


@dataclass(frozen=True)
class Server:
    """A running server: its address, the process, and the file that it serves: a configuration or a model."""

    url: str
    process: subprocess.Popen[bytes]
    file: Path


@contextmanager
def serving(folder: Path, text: str, port: int = 0) -> Iterator[Server]:
    """Start a server with a configuration, and end it.

    Args:
        folder: where its configuration and its log are written.
        text: the configuration.
        port: where it listens; 0: at any free port.
    """
    port = port or free_port()
    file = folder / f"{port}.toml"
    file.write_text(text, encoding="utf-8")
    with running([*MODELYARD, "serve", str(file)], file, port, folder / f"{port}.log", ROOT) as server:
        yield server


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], file: Path, port: int, log: Path, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server by a command, wait until it answers, and end it.

    Args:
        command: serves ``file``; the port is added to it.
        file: a configuration or a model.
        port: where it listens.
        log: where its output goes.
        folder: its working directory.
        environment: of its process; None: that of this process.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=out, stderr=subprocess.STDOUT, cwd=folder, env=environment
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", process, file)
        _wait(server, log)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(MAX_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(MAX_STOP_S)


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + MAX_START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise CheckFailed(f"the server ended: {' '.join(log.read_text(errors='replace').split()[-40:])}")
        try:
            asked(server, "/v1/models")
        except (CheckFailed, OSError):
            time.sleep(0.2)
        else:
            return
    raise CheckFailed(f"the server was not ready within {MAX_START_S:.0f} s")


def asked(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON that a server answers with, or raise CheckFailed with its error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=MAX_ANSWER_S) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise CheckFailed(f"{path}: {error.code} {error.read(500).decode(errors='replace')}") from error


def completed(server: Server, model: str) -> str:
    """Return a short greedy answer of a model."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    return str(asked(server, "/v1/completions", body)["choices"][0]["text"])


def loaded(server: Server) -> list[str]:
    """Return the names of the models that are loaded."""
    return [model["id"] for model in asked(server, "/v1/models")["data"] if model["status"] == "loaded"]


def listed(server: Server, model: str) -> dict[str, Any]:
    """Return what the server shows of a model."""
    found: dict[str, Any] = asked(server, f"/v1/models/{model}")
    return found


def planned(server: Server, model: str) -> dict[str, int]:
    """Return the bytes that a load of a model needs, as it is predicted now: of each device, and of the host."""
    plan = asked(server, "/v1/models/plan", {"model_id": model})
    devices = {name: pool["needed_bytes"] for name, pool in plan.get("devices", {}).items()}
    return {**{name: size for name, size in devices.items() if size}, "host": plan["needed_bytes"]}


def evictions(server: Server) -> int:
    """Return how many models were unloaded to make room."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=MAX_ANSWER_S) as answer:
        text = answer.read().decode()
    counts = re.findall(r'^modelyard_evictions_total\{.*reason="room".*\} ([0-9.e+]+)$', text, re.MULTILINE)
    return round(sum(map(float, counts)))


def host_bytes(process: int) -> int:
    """Return the memory of a process and its children in proportion to how many share it. Linux; 0 elsewhere."""
    total = 0
    for pid in _family(process):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def _family(process: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    family = [process]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family
