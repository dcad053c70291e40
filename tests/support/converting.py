"""Conversions in processes of their own, watched from outside."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from modelyard.hub.sources.llama_converter import child_environment

WAIT_S = 300.0


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that still run."""
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


class Ending:
    """Waits for processes that are not ours."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._handles = [os.pidfd_open(pid) for pid in pids]

    def wait(self, timeout_s: float = 30.0) -> bool:
        """Whether all of them have ended in time."""
        try:
            return all(select.select([handle], [], [], timeout_s)[0] for handle in self._handles)
        finally:
            for handle in self._handles:
                os.close(handle)


# Runs a command in a child of a small process: Linux counts what the parent holds as a child's own, until its exec.
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print("", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, sep="\\n")
sys.exit(status)
"""


def peak_bytes(program: str, *arguments: str | Path) -> int:
    """Run a program of ``modelyard.converter`` to its end: the most memory that it held, mapped files included."""
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", f"modelyard.converter.{program}"]
    command += map(str, arguments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()) as child:
        assert child.stdout is not None
        killer = threading.Timer(WAIT_S, child.kill)
        killer.start()
        said = child.stdout.read()
        child.wait()
        killer.cancel()
    assert child.returncode == 0, said
    return int(said.splitlines()[-1]) * 1024
