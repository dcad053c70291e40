"""Tokenises texts that may take long, in a process that is ended when it takes too long.

llama.cpp tokenises a text in one call that nothing interrupts. Of most texts it is known that the time is in proportion
to their length; of those with long runs (see ``long_runs``) it depends on the vocabulary.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from modelyard.engine.input.tokenizer_framing import ANSWER, REQUEST, cpu_seconds
from modelyard.errors import EngineError, InvalidRequest

PROGRAM: Final = ("-m", "modelyard.engine.input.tokenizer_program")

# A machine may be busy: so much longer than the processor time that a text may take, its tokens are waited for.
PATIENCE: Final = 4.0
# Processes of one engine. A text that waits for the end of another waits as long as that may take, at the most.
MAX_PROCESSES: Final = 2
IDLE_S: Final = 30.0
_READ_BYTES: Final = 1 << 20
_TOO_SLOW: Final = (
    "A text takes too long to tokenise. Shorten it; where it has thousands of characters of one kind in a row, such as "
    "digits, break them up."
)


class TokenizerProcesses:
    """The processes of one vocabulary, started when they are needed. Its methods may be called on any thread.

    Args:
        name: of the model, for messages.
        paths: its file, or all its shards.
        program: arguments of the interpreter that runs it.
    """

    def __init__(self, name: str, paths: Sequence[Path], program: Sequence[str] = PROGRAM) -> None:
        self._name = name
        self._command = [sys.executable, "-P", *program, *map(str, paths)]
        self._idle: list[subprocess.Popen[bytes]] = []
        self._busy: set[subprocess.Popen[bytes]] = set()
        self._places = threading.Semaphore(MAX_PROCESSES)
        self._change = threading.Lock()
        self._is_closed = False
        self._reaper: threading.Timer | None = None

    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of UTF-8, as ``Model.tokenize`` gives them.

        Raises:
            InvalidRequest: it takes too long, or the tokenizer dies of it.
            EngineError: others take long before it.
        """
        limit_s = PATIENCE * cpu_seconds(len(text))
        deadline = time.monotonic() + limit_s
        if not self._places.acquire(timeout=limit_s):
            raise EngineError(self._name, "its tokenizer is busy with other texts")
        try:
            child = self._take()
            try:
                tokens = _ask(child, REQUEST.pack(len(text), add_special, parse_special) + text, deadline)
            except BaseException:
                self._drop(child)
                raise
            self._give_back(child)
            return tokens
        finally:
            self._places.release()

    @property
    def busy(self) -> int:
        """How many are at work."""
        return len(self._busy)

    def close(self) -> None:
        """End the processes, those that are at work, too: who waits for them is told that they ended."""
        with self._change:
            self._is_closed = True
            idle, self._idle = self._idle, []
            if self._reaper is not None:
                self._reaper.cancel()
            for child in self._busy:
                _kill(child)
        for child in idle:
            _end(child)

    def _take(self) -> subprocess.Popen[bytes]:
        with self._change:
            if self._is_closed:
                raise EngineError(self._name, "it is being unloaded")
            child = self._idle.pop() if self._idle else self._start()
            self._busy.add(child)
        return child

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            process_group=0,
        )

    def _drop(self, child: subprocess.Popen[bytes]) -> None:
        with self._change:
            self._busy.discard(child)
        _end(child)

    def _give_back(self, child: subprocess.Popen[bytes]) -> None:
        with self._change:
            self._busy.discard(child)
            if not self._is_closed:
                self._idle.append(child)
                if self._reaper is not None:
                    self._reaper.cancel()
                self._reaper = threading.Timer(IDLE_S, self._end_idle)
                self._reaper.daemon = True
                self._reaper.start()
                return
        _end(child)

    def _end_idle(self) -> None:
        with self._change:
            idle, self._idle = self._idle, []
        for child in idle:
            _end(child)


def _ask(child: subprocess.Popen[bytes], request: bytes, deadline: float) -> list[int]:
    """What a process answers.

    Raises:
        InvalidRequest: it does not by ``deadline``, or it ends.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        # It reads the whole request before it begins, so that this does not wait for the tokenizer.
        child.stdin.write(request)
        child.stdin.flush()
    tokens = array("i")
    try:
        (length,) = ANSWER.unpack(_read(child.stdout, ANSWER.size, deadline))
        tokens.frombytes(_read(child.stdout, length * tokens.itemsize, deadline))
    except EOFError:
        if child.wait() == -signal.SIGXCPU:
            raise InvalidRequest(_TOO_SLOW) from None
        raise InvalidRequest("llama.cpp's tokenizer ends its process on a text. Shorten it, or change it.") from None
    except TimeoutError:
        raise InvalidRequest(_TOO_SLOW) from None
    return tokens.tolist()


def _read(stream: IO[bytes], length: int, deadline: float) -> bytes:
    """So many bytes.

    Raises:
        EOFError: the stream ends before.
        TimeoutError: they do not come by ``deadline``.
    """
    parts: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while length:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            part = os.read(stream.fileno(), min(length, _READ_BYTES))
            if not part:
                raise EOFError
            parts.append(part)
            length -= len(part)
    return b"".join(parts)


def _kill(child: subprocess.Popen[bytes]) -> None:
    # Not of one that was waited for, whose number may be another's by now.
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _end(child: subprocess.Popen[bytes]) -> None:
    _kill(child)
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
