"""A server in a process of its own, as a user starts it: it may die, and that is seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

START_S: Final = 120.0
STOP_S: Final = 60.0
_ADDRESS: Final = re.compile(r"serves \d+ models? at (http://[\d.:]+)/v1")


@dataclass
class Served:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process.poll() is None

    def post(self, path: str, body: Any, timeout_s: float) -> httpx.Response:
        """Send a request."""
        # As escapes: halves of characters have no UTF-8.
        text, headers = json.dumps(body), {"content-type": "application/json"}
        return httpx.post(self.url + path, content=text, headers=headers, timeout=timeout_s)


@contextmanager
def served(folder: Path, models: Sequence[dict[str, Any]], **runtime: Any) -> Iterator[Served]:
    """A server with ``models``, each a table of the configuration, at a port of the system's choice."""
    log = folder / "server.log"
    config = folder / "models.toml"
    lines = ["[server]", "port = 0", "[runtime]", *(f"{key} = {_toml(value)}" for key, value in runtime.items())]
    for model in models:
        device = model.get("device", {})
        lines += ["[[models]]", *(f"{key} = {_toml(value)}" for key, value in model.items() if key != "device")]
        lines += ["[models.device]", *(f"{key} = {_toml(value)}" for key, value in device.items())]
    config.write_text("\n".join(lines), "utf-8")
    command = [sys.executable, "-m", "modelyard", "from-config", "-f", str(config), "--no-supervisor"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield Served(_address(process, log), process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else f"'{value}'"


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = _ADDRESS.search(log.read_text("utf-8", "replace"))
        if found is not None:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"The server does not start: {log.read_text('utf-8', 'replace')[-2000:]}")
