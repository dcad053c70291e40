"""Tries a model in a process of its own before it is served, and describes in plain words what is wrong with it.

llama.cpp ends its process on some files, never returns from others, and computes nonsense from damaged weights.
``trial_program`` serves the model once in a process of its own, where none of that affects the server.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from modelyard.engine.hosts.last_words import last_words
from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.errors import OutOfDeviceMemory, UnusableModel
from modelyard.system.reporting_process import Ended, run_reporting

PROGRAM: Final = ("-m", "modelyard.engine.hosts.trial_program")

# Steps whose failures need no mention of the trial.
_LOAD_STEPS: Final = ("reading the weights", "loading")

_ADVICE: Final = "The file is damaged, or of a kind that llama.cpp does not compute. Use another file of this model."

# Failures that may not occur again. Source: "unable to allocate", "failed to allocate" in llama.cpp's messages.
_MEMORY_FAILURE: Final = re.compile(r"alloc|memory", re.IGNORECASE)


class TrialFailed(UnusableModel):
    """llama.cpp cannot serve the model, whatever the state of the machine, so the outcome may be stored."""


def run_trial(
    task: TrialTask, report: Callable[[str], bool] = lambda _: True, program: Sequence[str] = PROGRAM
) -> None:
    """Serve the model of ``task`` once, in a process of its own.

    Args:
        task: the engine to try, and the limits of its process.
        report: called ten times a second with the present step; if it returns False the trial is cancelled.
        program: arguments of the interpreter that runs it.

    Raises:
        TrialFailed: the model does not load, ends its process, does not end, or yields nonsense.
        OutOfDeviceMemory: a device could not allocate what the model needs there.
        UnusableModel: memory or time ran out, the trial was cancelled, or the system ended its process.
    """
    step = "starting"
    outcome: Mapping[str, Any] = {}

    def on_report(facts: dict[str, Any]) -> bool:
        nonlocal step, outcome
        step = facts.get("step", step)
        outcome = facts if "passed" in facts or "failure" in facts else outcome
        if not report(step):
            raise UnusableModel("The load was given up.")
        return True

    ended = run_reporting(program, os.environ, on_report, pickle.dumps(task), wall_s=task.limits.wall_s)
    _judge(step, outcome, ended)


def _judge(step: str, outcome: Mapping[str, Any], ended: Ended) -> None:
    """Raise the error that a trial showed, if any.

    Args:
        step: the step that was reported last.
        outcome: the program's last report; empty if it ended without one.
        ended: how its process ended.
    """
    status, words = ended.status, last_words(ended.log)
    if outcome.get("passed"):
        return
    if "failure" in outcome:
        failure = str(outcome["failure"])
        if _MEMORY_FAILURE.search(failure):
            raise (OutOfDeviceMemory if outcome.get("lacks_device_memory") else UnusableModel)(failure)
        raise TrialFailed(failure if step in _LOAD_STEPS else f"In its trial, with {step}, {failure}.")
    if status == -signal.SIGXCPU:
        raise TrialFailed(f"llama.cpp does not come to an end with {step}. {_ADVICE}")
    if ended.is_late:
        # A busy machine is not the model's fault.
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
