"""Reads the free memory of devices again and again, through one child process that keeps their drivers initialised.

The drivers of devices take seconds to initialise, and memory for each process that uses them; and asking a device that
is gone may end the process that asks, or hang.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any, Final

from modelyard.engine.hosts.last_words import how_it_ended
from modelyard.engine.placing import LlamaDevice

PROGRAM: Final = ("-m", "modelyard.engine.hosts.device_report_program")

FIRST_S: Final = 60.0
"""Bound of the first reading of a child: loading llama.cpp and initialising drivers takes seconds."""

NEXT_S: Final = 15.0
"""Bound of each further reading. A device of another machine that is gone is asked for as long as TCP tries."""

_END_S: Final = 10.0


class DevicesNotRead(Exception):
    """The devices could not be read: the child has ended, or the time ran out. The next reading starts another child.

    Attributes:
        reason: why, as a part of a sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DeviceReader:
    """Reads all devices through a child process, which the first reading starts.

    One thread reads at a time; ``close`` may be called on any.

    Args:
        program: arguments of the interpreter that runs the child.
        first_s, next_s: bounds of the first reading of a child, and of the others.
    """

    def __init__(self, program: Sequence[str] = PROGRAM, *, first_s: float = FIRST_S, next_s: float = NEXT_S) -> None:
        self._program = program
        self._first_s, self._next_s = first_s, next_s
        self._child: _Child | None = None
        self._is_closed = False
        # Held while a child is started or ended, never while it is waited for.
        self._change = threading.Lock()

    def read(self) -> tuple[LlamaDevice, ...]:
        """Return all devices as they are now. Blocks for as long as they take to answer.

        Raises:
            DevicesNotRead: they cannot be read now, or this reader is closed.
        """
        with self._change:
            if self._is_closed:
                raise DevicesNotRead("this reader is closed")
            child, bound_s = self._child, self._next_s
            if child is None:
                try:
                    child, bound_s = _Child(self._program), self._first_s
                except OSError as error:
                    raise DevicesNotRead(f"no process can be started for it: {error.strerror}") from error
                self._child = child
        try:
            return child.read(bound_s)
        except DevicesNotRead:
            with self._change:
                self._child = None
            child.end()
            raise

    def close(self) -> None:
        """End the child, and with it a reading that waits for it."""
        with self._change:
            self._is_closed = True
            child, self._child = self._child, None
        if child is not None:
            child.end()


class _Child:
    def __init__(self, program: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            # -P: a folder "json" in the working directory is not the library of that name.
            [sys.executable, "-P", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            # Ctrl-C at the terminal signals this process only.
            process_group=0,
        )
        assert self._process.stdout is not None
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(
            target=_read_lines, args=(self._process.stdout, self._lines), name="devices", daemon=True
        )
        self._reader.start()
        self._ending = threading.Lock()

    def read(self, bound_s: float) -> tuple[LlamaDevice, ...]:
        deadline = time.monotonic() + bound_s
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise DevicesNotRead(self._how_it_ended()) from None
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise DevicesNotRead(f"they have not answered within {bound_s:.0f} s") from None
            if line is None:
                raise DevicesNotRead(self._how_it_ended())
            if (found := _parsed(line)) is not None:
                return found

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        return how_it_ended(self._process.poll(), "")

    def end(self) -> None:
        """Kill the process, and wait until it is gone. Called on any thread, more than once."""
        with self._ending:
            self._process.kill()
            # A driver that hangs keeps its process, and this thread, which is then left behind.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            self._reader.join(_END_S)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            if not self._reader.is_alive():
                self._process.stdout.close()


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _parsed(line: bytes) -> tuple[LlamaDevice, ...] | None:
    """Return the devices in a line; None where it is another one, because drivers print, too."""
    try:
        facts: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(facts, dict) or "devices" not in facts:
        return None
    return tuple(LlamaDevice(**device) for device in facts["devices"])
