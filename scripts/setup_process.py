"""Commands of the set-up: their output goes into a log, and a failure says what to do.

Needs nothing but Python, and an old one can read it: scripts/setup_venv.py refuses that by name.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Callable, Iterator  # noqa: UP035 - an old Python must get as far as the message about it

from pip_output import ADVICE, Progress, phase_of

ROOT = Path(__file__).resolve().parent.parent

EXCERPT_LINES = 30


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


class LoggedCommand:
    """A command that runs in a process group of its own, so that compilers end with pip, whoever is told to stop."""

    def __init__(self, command: list[str], name: str, log: IO[str], way_out: str = "") -> None:
        self._name = name
        self._log = log
        self._way_out = way_out
        log.write(f"$ {' '.join(command)}\n")
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def follow(self, show: Callable[[str | None], None]) -> None:
        """Write its output into the log until it ends.

        Args:
            show: takes the phase of pip with each line that tells one, and None with others and twice a second.

        Raises:
            SetupError: it has failed.
        """
        excerpt: deque[str] = deque(maxlen=EXCERPT_LINES)
        cause = ""
        assert self._process.stdout is not None
        for line in _lines_of(self._process.stdout):
            show(None if line is None else phase_of(line))
            if line is None:
                continue
            self._log.write(line + "\n")
            if line.strip() and not re.match(r"\s*\[\d+/\d+\] ", line):
                excerpt.append(line[:300])
            cause = next((text for pattern, text in ADVICE if pattern.search(line)), cause)
        self._log.flush()
        if self._process.wait() != 0:
            way_out = [cause or "Repair the cause.", "Then run the same command again: what is done already is kept."]
            lines = [*excerpt, "", f"{self._name} failed; all of its output: {self._log.name}", *way_out]
            raise SetupError("\n".join([*lines, *filter(None, [self._way_out])]))

    def stop(self) -> None:
        """End it where it still runs, politely at first."""
        for signum in (signal.SIGINT, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            os.killpg(self._process.pid, signum)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue

    def close(self) -> None:
        """Close its output, which nobody follows any more."""
        assert self._process.stdout is not None
        self._process.stdout.close()


def run_logged(command: list[str], name: str, log: IO[str], progress: Progress) -> None:
    """Run a command, its output into the log, the phases of pip in it onto the screen.

    Raises:
        SetupError: it has failed.
    """
    running = LoggedCommand(command, name, log)

    def show(phase: str | None) -> None:
        progress.tick(time.monotonic())
        progress.phase = phase or progress.phase

    try:
        running.follow(show)
    finally:
        progress.clear()
        running.stop()
        running.close()


@contextmanager
def run_beside(command: list[str], name: str, log: IO[str], progress: Progress, way_out: str = "") -> Iterator[None]:
    """Run a command beside the body of the context, whose end waits for it. A body that fails ends it.

    Args:
        way_out: what may be done where it fails, beside the repair of the cause.

    Raises:
        SetupError: it has failed.
    """
    running = LoggedCommand(command, name, log, way_out)
    failures: list[BaseException] = []

    def show(phase: str | None) -> None:
        progress.beside = phase or progress.beside

    def follow() -> None:
        try:
            running.follow(show)
        except (SetupError, OSError, ValueError) as failure:
            failures.append(failure)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
        progress.phase = ""
        while thread.is_alive():
            thread.join(0.2)
            progress.tick(time.monotonic())
    finally:
        running.stop()
        thread.join()
        progress.clear()
        progress.beside = ""
        running.close()
    if failures:
        raise failures[0]


def _lines_of(stream: IO[bytes]) -> Iterator[str | None]:
    """The lines of a pipe as they come; None twice a second while none does."""
    rest = b""
    while True:
        if not select.select([stream], [], [], 0.5)[0]:
            yield None
            continue
        block = os.read(stream.fileno(), 1 << 16)
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
