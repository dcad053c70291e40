"""The devices of this machine with their free memory, as often as they are asked for.

A process of its own asks the drivers: they take memory for each process that uses them, and a driver, or a device of
another process that is gone, may end the process that asks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO, Final

from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel

PROGRAM: Final = ("-m", "modelyard.engine.hosts.device_reporter_program")

# Loading llama.cpp and initialising a driver takes seconds, asking it a few milliseconds.
WAIT_S: Final = 30.0
_END_S: Final = 5.0


class DeviceReporter:
    """Asks a process for the devices, and starts it again when it has ended. Every method may be called on any thread.

    Args:
        program: arguments of the interpreter that runs the process.
        wait_s: longest time for an answer.
    """

    def __init__(self, program: Sequence[str] = PROGRAM, wait_s: float = WAIT_S) -> None:
        self._program = tuple(program)
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()

    def read(self) -> tuple[LlamaDevice, ...]:
        """Return all devices, as they are now.

        Raises:
            UnusableModel: they cannot be asked: llama.cpp cannot be loaded, or a device is gone. The next call asks
                again, in a new process, which lists the devices that are left.
        """
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(b"\n")
                process.stdin.flush()
                line = self._lines.get(timeout=self._wait_s)
                return _devices(line)
            except (OSError, Empty, ValueError, TypeError) as error:
                self._end()
                raise UnusableModel(
                    "The devices of this machine cannot be asked for their memory: the process that asks them "
                    f"{'did not answer' if isinstance(error, Empty) else 'ended'}. See `modelyard doctor`."
                ) from error

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._lines = SimpleQueue()
            self._process = subprocess.Popen(
                [sys.executable, "-P", *self._program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C at the terminal signals this process only.
                process_group=0,
            )
            assert self._process.stdout is not None
            threading.Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()


def _read_lines(stream: IO[bytes], lines: SimpleQueue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _devices(line: bytes | None) -> tuple[LlamaDevice, ...]:
    if line is None:
        raise ValueError("the process has ended")
    return tuple(LlamaDevice(**device) for device in json.loads(line))
