"""Programs of ``modelyard.converter`` in a process of their own, from outside.

They load what a server must not hold (torch), can be killed at any point, and take only themselves down when they
crash. They say on standard output how far they are, one JSON object a line; the pipe to their standard input tells them
when we are gone.
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
from collections.abc import Callable, Sequence
from typing import IO, Any, Final

from modelyard.errors import ConversionFailed, UnusableModel
from modelyard.hub.listing import OnProgress, Progress
from modelyard.hub.llama_converter import child_environment

_LOOK_S: Final = 0.2
_END_S: Final = 10.0
_SHOWN_OF_A_CRASH: Final = 2000


def run_converter(
    program: str, arguments: Sequence[str], on_progress: OnProgress, on_notice: Callable[[str], None]
) -> None:
    """Run ``python -m modelyard.converter.<program>`` to its end.

    Args:
        program: name of the module.
        arguments: of its command line.
        on_progress: what it reports is handed on; returning False kills it.
        on_notice: takes what people should know of the result.

    Raises:
        ConversionFailed: the program refused or failed on its input; the message is its own.
        UnusableModel: it was given up, or the machine ran out of memory or disk.
    """
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            # -P: a folder "gguf" in the working directory is not the library of that name.
            [sys.executable, "-P", "-m", f"modelyard.converter.{program}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # What llama.cpp says of its own failures is enough: a debugger's trace would bury it.
            env={
                **child_environment(),
                "HF_HUB_OFFLINE": "1",
                "PYTHONUNBUFFERED": "1",
                "GGML_NO_BACKTRACE": "1",
            },
            # Ctrl-C at the terminal is ours to handle.
            process_group=0,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            error = _follow(lines, on_progress, on_notice)
            status = child.wait(_END_S)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            child.stdin.close()
            reader.join(_END_S)
            child.stdout.close()
        if error is not None:
            raise error
        if status != 0:
            description = _describe_crash(program, status, log)
            raise UnusableModel(description) if status == -signal.SIGKILL else ConversionFailed(description)


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _follow(
    lines: queue.SimpleQueue[bytes | None], on_progress: OnProgress, on_notice: Callable[[str], None]
) -> UnusableModel | None:
    """Hand on what the child says until it says no more; the error that it ended with."""
    progress = Progress("starting the converter", 0.0)
    error: UnusableModel | None = None
    while True:
        try:
            line = lines.get(timeout=_LOOK_S)
        except queue.Empty:
            line = b""
        if line is None:
            return error
        said = _parse(line)
        if "step" in said:
            progress = Progress(str(said["step"]), float(said.get("fraction", 0.0)))
        if "notice" in said:
            on_notice(str(said["notice"]))
        if "error" in said:
            error = (ConversionFailed if said.get("is_of_model") else UnusableModel)(str(said["error"]))
        if not on_progress(progress):
            raise UnusableModel("The conversion was given up.")


def _parse(line: bytes) -> dict[str, Any]:
    """What a line says; {} where it is not of the protocol: libraries print, too."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _describe_crash(program: str, status: int, log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - _SHOWN_OF_A_CRASH))
    last = " ".join(log.read().decode("utf-8", "replace").split())
    how = f"signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exit status {status}"
    memory = " Memory may have run out." if status == -signal.SIGKILL else ""
    return f"The program {program} ended with {how}.{memory} Its last words: {last or 'none'}"
