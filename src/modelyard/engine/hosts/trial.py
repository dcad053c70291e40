"""Tries a model in a process of its own before it is served, and says in plain words what is wrong with it.

llama.cpp ends its process on some files, never returns from others, and computes nonsense from weights that are
damaged. ``trial_program`` serves the model once, where all of that ends nothing else.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final

from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.errors import UnusableModel

PROGRAM: Final = ("-m", "modelyard.engine.hosts.trial_program")

# Steps whose failures say all there is to say.
_BEFORE_ITS_WORK: Final = ("reading the weights", "loading")

_LOOK_S: Final = 0.1
_END_S: Final = 10.0
_READ_OF_LOG: Final = 4000
_SHOWN_OF_LOG: Final = 300
_ADVICE: Final = "The file is damaged, or of a kind that llama.cpp does not compute. Use another file of this model."

# Last words of llama.cpp, and of a C++ exception that nobody catches. Source: ggml/src/ggml.c, ggml_abort.
_LAST_WORDS: Final = re.compile(r"\.(?:c|cc|cpp|cu|h|m|metal):\d+: |what\(\):")
# What may go well on another day. Source: "unable to allocate", "failed to allocate" in llama.cpp's messages.
_OF_MEMORY: Final = re.compile(r"alloc|memory", re.IGNORECASE)
_SOURCE_FOLDER: Final = re.compile(r"\S*/(?=[^/\s]+\.(?:c|cc|cpp|cu|h|m):\d+)")


class TrialFailed(UnusableModel):
    """llama.cpp cannot serve the model, and would not on another day: the outcome may be remembered."""


def run_trial(
    task: TrialTask, report: Callable[[str], bool] = lambda _: True, program: Sequence[str] = PROGRAM
) -> None:
    """Serve the model of ``task`` once, in a process of its own.

    Args:
        task: what is tried, and what it may take.
        report: called ten times a second with the step it is at; returning False gives the trial up.
        program: arguments of the interpreter that runs it.

    Raises:
        TrialFailed: it does not load, ends its process, does not end, or gives nonsense.
        UnusableModel: memory or the clock ran out, the trial was given up, or the system ended its process.
    """
    deadline = time.monotonic() + task.limits.wall_s
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            # -P: a folder "numpy" in the working directory is not the library of that name.
            [sys.executable, "-P", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # A debugger's trace would bury the reason that llama.cpp gives, and takes seconds.
            env={**os.environ, "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"},
            # Ctrl-C at the terminal is the server's to handle.
            process_group=0,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True)
        reader.start()
        step, is_late = "starting", False
        outcome: Mapping[str, Any] = {}
        try:
            try:
                pickle.dump(task, child.stdin)
                child.stdin.flush()
            except BrokenPipeError:
                # Its last words say why it did not read them.
                pass
            while not is_late and (line := _next(lines)) is not None:
                said = _parse(line)
                step = said.get("step", step)
                outcome = said if "passed" in said or "failure" in said else outcome
                if not report(step):
                    raise UnusableModel("The load was given up.")
                is_late = time.monotonic() > deadline
            if not is_late:
                child.wait(_END_S)
        except subprocess.TimeoutExpired:
            is_late = True
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            child.stdin.close()
            reader.join(_END_S)
            child.stdout.close()
        _judge(step, outcome, child.returncode, is_late=is_late, last_words=_last_words(log))


def _judge(step: str, outcome: Mapping[str, Any], status: int, *, is_late: bool, last_words: str) -> None:
    """Raise what a trial showed.

    Args:
        step: that was named last.
        outcome: what the program said at its end; empty where it did not come to it.
        status: of its exit, a signal as a negative number.
        is_late: whether it was ended by the clock.
        last_words: what llama.cpp wrote before the end.
    """
    if outcome.get("passed"):
        return
    if "failure" in outcome:
        failure = str(outcome["failure"])
        if _OF_MEMORY.search(failure):
            raise UnusableModel(failure)
        raise TrialFailed(failure if step in _BEFORE_ITS_WORK else f"In its trial, with {step}, {failure}.")
    if status == -signal.SIGXCPU:
        raise TrialFailed(f"llama.cpp does not come to an end with {step}. {_ADVICE}")
    if is_late:
        # A machine that does too much else is no fault of the model's.
        raise UnusableModel(f"llama.cpp has not come to an end with {step}. Try again when the machine is less busy.")
    if status == -signal.SIGKILL:
        raise UnusableModel(
            f"The system ended the process in which the model was tried ({step}). Memory may have run out: unload "
            "models, or close other programs."
        )
    if status < 0:
        reason = last_words or signal.strsignal(-status) or f"signal {-status}"
        raise TrialFailed(f"llama.cpp ends its process with {step}: {reason}. {_ADVICE}")
    raise UnusableModel(f"The trial of the model failed with {step}: {last_words or f'exit status {status}'}.")


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _next(lines: queue.SimpleQueue[bytes | None]) -> bytes | None:
    try:
        return lines.get(timeout=_LOOK_S)
    except queue.Empty:
        return b""


def _parse(line: bytes) -> dict[str, Any]:
    """What a line says; {} where it is not of the protocol: libraries print, too."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _last_words(log: IO[bytes]) -> str:
    """The last line of a log that says why the process ended, without the folders of source files; "" for none."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - _READ_OF_LOG))
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines()]
    found = next((line for line in reversed(lines) if _LAST_WORDS.search(line)), "")
    return _SOURCE_FOLDER.sub("", found)[:_SHOWN_OF_LOG].strip()
