"""Programs of ``modelyard.converter`` in a process of their own, from outside.

They load what a server must not hold (torch), can be killed at any point, and take only themselves down when they
crash. They say on standard output how far they are, one JSON object a line; the pipe to their standard input tells them
when we are gone.
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

_SHOWN_OF_A_CRASH: Final = 2000


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
        arguments: of its command line.
        on_progress: what it reports is handed on; returning False kills it.
        on_notice: takes what people should know of the result.
        is_private: what it writes is for this user alone; else as the user's umask has it.

    Raises:
        ConversionFailed: the program refused or failed on its input; the message is its own.
        UnusableModel: it was given up, or the machine ran out of memory or disk.
    """
    progress = Progress("starting the converter", 0.0)
    error: UnusableModel | None = None

    def hear(said: dict[str, Any]) -> bool:
        nonlocal progress, error
        if "step" in said:
            progress = Progress(str(said["step"]), float(said.get("fraction", 0.0)))
        if "notice" in said:
            on_notice(str(said["notice"]))
        if "error" in said:
            error = (ConversionFailed if said.get("is_of_model") else UnusableModel)(str(said["error"]))
        if not on_progress(progress):
            raise UnusableModel("The conversion was given up.")
        return True

    module = f"modelyard.converter.{program}"
    environment = {**child_environment(), "HF_HUB_OFFLINE": "1"}
    umask = PRIVATE_UMASK if is_private else -1
    ended = run_reporting(("-m", module, *arguments), environment, hear, umask=umask)
    if error is not None:
        raise error
    if ended.status != 0:
        description = _describe_crash(program, ended)
        raise UnusableModel(description) if ended.status == -signal.SIGKILL else ConversionFailed(description)


def _describe_crash(program: str, ended: Ended) -> str:
    status = ended.status
    last = " ".join(ended.log[-_SHOWN_OF_A_CRASH:].split())
    how = f"signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exit status {status}"
    memory = " Memory may have run out." if status == -signal.SIGKILL else ""
    return f"The program {program} ended with {how}.{memory} Its last words: {last or 'none'}"
