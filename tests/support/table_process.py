"""Another process that maps a table of engines and does there what a test tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import modelyard
from modelyard.engine.scheduling.engine_table import EngineTable

# The path of the table is its argument; a line is waited for before it opens it, so that a record can be reserved.
_BEGIN = """
import sys, time
from pathlib import Path
from modelyard.engine.scheduling.engine_table import EngineTable
from modelyard.engine.hosts.journal import leftover_journals, open_journal
from modelyard.engine.scheduling.fair_share import Device, DeviceShare
path = Path(sys.argv[1])
def say(text): print(text, flush=True)
def hear(): return sys.stdin.readline().strip()
hear()
"""


class TableProcess:
    """A child that runs ``program``: it has ``path``, says lines with ``say``, and waits for some with ``hear``."""

    def __init__(self, program: str, path: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(modelyard.__file__).parent.parent)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BEGIN + program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.pid = self._process.pid

    def tell(self, line: str = "go on") -> None:
        """Send it a line; the first one has it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def heard(self) -> str:
        """Its next line; "" where it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """End it as the system would, and wait until it is gone."""
        self._process.kill()
        self._process.wait(30)

    def close(self) -> None:
        """End it, if it has not ended."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def table_process(program: str, path: Path, table: EngineTable | None = None) -> Iterator[TableProcess]:
    """Such a process for so long, with a record of ``table`` reserved for it, if there is one."""
    process = TableProcess(program, path)
    try:
        if table is not None:
            table.reserve(process.pid, "of the child")
        process.tell()
        yield process
    finally:
        process.close()
