"""Tries a model in a process of its own before it is served, and says in plain words what is wrong with it.

llama.cpp ends its process on some files, never returns from others, and computes nonsense from weights that are
damaged. ``trial_program`` serves the model once, where all of that ends nothing else.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelyard.engine.hosts.last_words import last_words
from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.errors import UnusableModel
from modelyard.system.reporting_process import Ended, run_reporting

PROGRAM: Final = ("-m", "modelyard.engine.hosts.trial_program")

# Steps whose failures say all there is to say.
_BEFORE_ITS_WORK: Final = ("reading the weights", "loading")

_ADVICE: Final = "The file is damaged, or of a kind that llama.cpp does not compute. Use another file of this model."

# What may go well on another day. Source: "unable to allocate", "failed to allocate" in llama.cpp's messages.
_OF_MEMORY: Final = re.compile(r"alloc|memory", re.IGNORECASE)


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
    step = "starting"
    outcome: Mapping[str, Any] = {}

    def hear(said: dict[str, Any]) -> bool:
        nonlocal step, outcome
        step = said.get("step", step)
        outcome = said if "passed" in said or "failure" in said else outcome
        if not report(step):
            raise UnusableModel("The load was given up.")
        return time.monotonic() < deadline

    ended = run_reporting(program, os.environ, hear, pickle.dumps(task))
    _judge(step, outcome, ended, is_late=time.monotonic() >= deadline)


def _judge(step: str, outcome: Mapping[str, Any], ended: Ended, *, is_late: bool) -> None:
    """Raise what a trial showed.

    Args:
        step: that was named last.
        outcome: what the program said at its end; empty where it did not come to it.
        ended: how its process did.
        is_late: whether it may have been ended by the clock.
    """
    status, words = ended.status, last_words(ended.log)
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
        reason = words or signal.strsignal(-status) or f"signal {-status}"
        raise TrialFailed(f"llama.cpp ends its process with {step}: {reason}. {_ADVICE}")
    raise UnusableModel(f"The trial of the model failed with {step}: {words or f'exit status {status}'}.")
