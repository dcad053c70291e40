"""Runs a function in a process of its own, which may end or hang as it likes.

The processes are forked from one that has imported the engine and has no threads: to start one takes 20 ms and not a
second.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Final

_TESTS: Final = Path(__file__).resolve().parents[1]
_READ_OF_LOG: Final = 4000
_SHOWN_OF_LOG: Final = 300
# A machine may be busy: so much longer than its processor time a process may be there. What computes for ever is ended
# by the system, when its processor time is over; this is for what waits for ever.
_PATIENCE: Final = 60.0
_LAST_WORDS: Final = re.compile(r"\.(?:c|cc|cpp|cu|h|m):\d+: |what\(\):|Error")

_FOLDER: Final = re.compile(r"\S*/")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["fuzz.serving", "fuzz.texts"])


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        value: what the function returned; None where it did not.
        end: how the process ended instead, in a few words; "" where it returned.
        step: what it said that it was at.
        cpu_s: processor time that it took.
    """

    value: Any
    end: str
    step: str
    cpu_s: float


def run_child(function: Callable[..., Any], *arguments: Any, cpu_s: float) -> Ended:
    """Call ``function(report, *arguments)`` in a process that may take ``cpu_s`` seconds of processor time.

    ``report`` takes a text: what the function is at.
    """
    _start_server()
    mine, theirs = _context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile() as log:
        process = _context.Process(target=_main, args=(theirs, log.name, cpu_s, function, arguments), daemon=False)
        process.start()
        theirs.close()
        value, step, is_done, failure, used = None, "starting", False, "", 0.0
        deadline = time.monotonic() + _PATIENCE * cpu_s
        with contextlib.suppress(EOFError):
            while not is_done and mine.poll(max(0.0, deadline - time.monotonic())):
                what, content = mine.recv()
                match what:
                    case "step":
                        step = content
                    case "value":
                        (value, used), is_done = content, True
                    case "failure":
                        failure, is_done = content, True
        process.join(10.0 if is_done else max(0.1, deadline - time.monotonic()))
        is_late = process.exitcode is None
        if is_late:
            process.kill()
            process.join()
        status = process.exitcode or 0
        process.close()
        mine.close()
        if is_done:
            return Ended(value, failure, step, used)
        return Ended(None, _end(status, is_late=is_late, log=Path(log.name)), step, cpu_s)


def _start_server() -> None:
    """Have the process that the others are forked from, and have it find what it imports."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys((str(_TESTS), str(_TESTS.parent / "src"), *sys.path)))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _main(pipe: Any, log: str, cpu_s: float, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(log, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["GGML_NO_BACKTRACE"] = "1"
    # One thread of llama.cpp's: several wait for one another at every step, for long where the machine is busy.
    os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})
    begun = time.process_time()
    seconds = int(begun + cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        value = function(lambda step: pipe.send(("step", step)), *arguments)
        pipe.send(("value", (value, time.process_time() - begun)))
    except Exception:
        lines = traceback.format_exc().strip().splitlines()
        pipe.send(("failure", f"an exception: {lines[-1]} ({lines[-3].strip() if len(lines) > 2 else ''})"))
    # Threads of llama.cpp are not to be taken apart.
    os._exit(0)


def _end(status: int, *, is_late: bool, log: Path) -> str:
    if is_late:
        return "it hangs without computing"
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return "it computes for ever"
    words = log.read_bytes()[-_READ_OF_LOG:].decode("utf-8", "replace").splitlines()
    reason = next((line.strip() for line in reversed(words) if _LAST_WORDS.search(line)), "")
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"the process ends with {name}: {_FOLDER.sub('', reason)[:_SHOWN_OF_LOG]}"
