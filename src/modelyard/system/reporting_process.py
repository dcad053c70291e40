"""Runs a Python program that says on standard output how far it is, one JSON object a line.

It can be ended at any point, and its standard input tells it when nobody waits for it any more.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

_LOOK_S: Final = 0.1
_END_S: Final = 10.0
_KEPT_OF_LOG: Final = 4000


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        status: of its exit, a signal as a negative number.
        log: the end of what it wrote to its standard error.
    """

    status: int
    log: str


def run_reporting(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    hear: Callable[[dict[str, Any]], bool],
    task: bytes = b"",
    *,
    umask: int = -1,
) -> Ended:
    """Run a program to its end.

    Args:
        arguments: of the Python interpreter.
        environment: beside what every such program gets.
        hear: called with each object that it says, and with {} ten times a second where it says nothing. Returning
            False ends it, and so does what is raised there.
        task: that it reads from its standard input, which stays open.
        umask: of the files that it writes; -1: as of this process.
    """
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            # -P: a folder "gguf" or "numpy" in the working directory is not the library of that name.
            [sys.executable, "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # What llama.cpp says of its own failures is enough: a debugger's trace would bury it, and takes seconds.
            env={**environment, "PYTHONUNBUFFERED": "1", "GGML_NO_BACKTRACE": "1"},
            # Ctrl-C at the terminal is ours to handle.
            process_group=0,
            umask=umask,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            # A program that ended at once does not read it: its status says so.
            with suppress(BrokenPipeError):
                child.stdin.write(task)
                child.stdin.flush()
            if _follow(lines, hear):
                # One that has closed its output and goes on is ended below.
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
        log.seek(max(0, log.seek(0, os.SEEK_END) - _KEPT_OF_LOG))
        return Ended(child.returncode, log.read().decode("utf-8", "replace"))


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _follow(lines: queue.SimpleQueue[bytes | None], hear: Callable[[dict[str, Any]], bool]) -> bool:
    """Hand on what the program says until it says no more; False where it is to be ended before."""
    while True:
        try:
            line = lines.get(timeout=_LOOK_S)
        except queue.Empty:
            line = b""
        if line is None:
            return True
        if not hear(_parse(line)):
            return False


def _parse(line: bytes) -> dict[str, Any]:
    """What a line says; {} where it is not of the protocol: libraries print, too."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
