"""Runs programs of ``modelyard.converter``, each in a process of its own.

Such a process loads libraries that a server must not hold (torch), can be killed at any point, and takes nothing else
down when it crashes. It reports its progress on standard output, one JSON object a line, and ends when the pipe to its
standard input closes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any, Final

from modelyard.errors import ConversionFailed, UnusableModel
from modelyard.hub.sources.listing import OnProgress, Progress
from modelyard.hub.sources.llama_converter import child_environment
from modelyard.system.private_files import PRIVATE_UMASK
from modelyard.system.reporting_process import Ended, run_reporting

_MAX_CRASH_LOG_LENGTH: Final = 2000


def run_converter(
    program: str,
    arguments: Sequence[str],
    on_progress: OnProgress,
    on_notice: Callable[[str], None],
    *,
    is_private: bool = True,
) -> None:
    """Run ``python -m modelyard.converter.<program>`` to its end.

    Args:
        program: name of the module.
        arguments: arguments of the program's command line.
        on_progress: called with the progress that the program reports; returning False kills it.
        on_notice: called with each notice to the user that the program reports.
        is_private: whether the files it writes are for this user alone; else the user's umask applies.

    Raises:
        ConversionFailed: the program refused or failed on its input; the message is the program's.
        UnusableModel: the conversion was cancelled, or the machine ran out of memory or disk.
    """
    progress = Progress("starting the converter", 0.0)
    error: UnusableModel | None = None

    def on_report(report: dict[str, Any]) -> bool:
        nonlocal progress, error
        if "step" in report:
            progress = Progress(str(report["step"]), float(report.get("fraction", 0.0)))
        if "notice" in report:
            on_notice(str(report["notice"]))
        if "error" in report:
            error = (ConversionFailed if report.get("is_model_fault") else UnusableModel)(str(report["error"]))
        if not on_progress(progress):
            raise UnusableModel("The conversion was given up.")
        return True

    module = f"modelyard.converter.{program}"
    environment = {**child_environment(), "HF_HUB_OFFLINE": "1"}
    umask = PRIVATE_UMASK if is_private else -1
    ended = run_reporting(("-m", module, *arguments), environment, on_report, umask=umask)
    if error is not None:
        raise error
    if ended.status != 0:
        description = _describe_crash(program, ended)
        raise UnusableModel(description) if ended.status == -signal.SIGKILL else ConversionFailed(description)


def _describe_crash(program: str, ended: Ended) -> str:
    status = ended.status
    last = " ".join(ended.log[-_MAX_CRASH_LOG_LENGTH:].split())
    how = f"signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exit status {status}"
    memory = " Memory may have run out." if status == -signal.SIGKILL else ""
    return f"The program {program} ended with {how}.{memory} Its last words: {last or 'none'}"
