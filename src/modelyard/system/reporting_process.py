"""Runs a Python program that reports its progress on standard output, one JSON object a line.

The program can be ended at any point. Its standard input reaches the end of file when this process has ended.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

_POLL_S: Final = 0.1
_END_S: Final = 10.0
_MAX_LOG_BYTES: Final = 4000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        status: its exit status; a signal is a negative number.
        log: the end of its standard error.
        is_late: whether its time had run out, so that it may have been killed.
    """

    status: int
    log: str
    is_late: bool


def run_reporting(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    on_report: Callable[[dict[str, Any]], bool],
    task: bytes = b"",
    *,
    wall_s: float = math.inf,
    umask: int = -1,
) -> Ended:
    """Run a program to its end.

    Args:
        arguments: arguments of the Python interpreter.
        environment: environment variables, to which this function adds its own.
        on_report: called with each reported object, and with {} ten times a second while there is none. If it returns
            False or raises, the program is killed.
        task: bytes for its standard input, which stays open.
        wall_s: limit of the wall-clock time, after which the program is killed.
        umask: umask of the program; -1: that of this process.
    """
    deadline = time.monotonic() + wall_s

    def goes_on(report: dict[str, Any]) -> bool:
        return on_report(report) and time.monotonic() < deadline

    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            # -P: a folder "gguf" or "numpy" in the working directory is not the library of that name.
            [sys.executable, "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # A debugger's trace takes seconds and would hide llama.cpp's own message.
            env={**environment, "PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"},
            # Ctrl-C at the terminal signals this process only.
            process_group=0,
            umask=umask,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            # A program that ends at once does not read the task; its status shows that.
            with suppress(BrokenPipeError):
                child.stdin.write(task)
                child.stdin.flush()
            if _follow(lines, goes_on):
                # A program that has closed its output and does not end is killed below.
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_END_S)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            with suppress(BrokenPipeError):
                child.stdin.close()
            reader.join(_END_S)
            child.stdout.close()
        log.seek(max(0, log.seek(0, os.SEEK_END) - _MAX_LOG_BYTES))
        return Ended(child.returncode, log.read().decode("utf-8", "replace"), time.monotonic() >= deadline)


def run_to_outcome(
    arguments: Sequence[str], task: bytes, *, wall_s: float, goes_on: Callable[[], bool]
) -> tuple[Mapping[str, Any], Ended]:
    """Run a program to its end; return its last report, {} without one, and how it ended.

    Args:
        arguments, task, wall_s: see ``run_reporting``.
        goes_on: called ten times a second; if it returns False the program is killed.
    """
    outcome: Mapping[str, Any] = {}

    def on_report(facts: dict[str, Any]) -> bool:
        nonlocal outcome
        outcome = facts or outcome
        return goes_on()

    ended = run_reporting(arguments, os.environ, on_report, task, wall_s=wall_s)
    return outcome, ended


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _follow(lines: queue.SimpleQueue[bytes | None], on_report: Callable[[dict[str, Any]], bool]) -> bool:
    """Pass reports on until the program closes its output; return False if ``on_report`` ends it before."""
    while True:
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            line = b""
        if line is None:
            return True
        if not on_report(_parse(line)):
            return False


def _parse(line: bytes) -> dict[str, Any]:
    """Return the report in a line; {} if the line is no report, because libraries print, too."""
    try:
        report = json.loads(line)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def report(**facts: object) -> None:
    """Write a report for the parent of this process, which is such a program."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def end_with_parent() -> None:
    """End this process, which is such a program, when its parent has ended. Its standard input must have been read."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Not read through sys.stdin, whose lock the interpreter needs when it exits.
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(1)
