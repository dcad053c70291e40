"""Memory: what is predicted for a model, against what a process takes that loads it and fills its context."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from architectures.server import environment

CONTEXT: Final = 8192
_RUNNING, _KEPT, _BATCH_TOKENS = 32, 16, 512
_WAIT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one model with its context.

    Attributes:
        predicted: from its header.
        measured: by which the process grew.
    """

    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        """The prediction as a part of what was measured."""
        return self.predicted / max(1, self.measured)


class NotMeasured(Exception):
    """The process that measures failed; the message has its last words."""


def measure(name: str, folder: Path) -> Memory:
    """Load the model of a checkpoint, which was converted to be served as ``name``, and keep it busy.

    Raises:
        NotMeasured: it cannot be loaded.
    """
    numbers = (CONTEXT, _RUNNING, _KEPT, _BATCH_TOKENS)
    command = [sys.executable, "-m", "support.busy", str(folder), *map(str, numbers), "f16"]
    tests = Path(__file__).resolve().parents[1]
    env = environment(name)
    env["PYTHONPATH"] = f"{tests}:{env['PYTHONPATH']}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, env=env)
    if done.returncode:
        raise NotMeasured(" ".join(done.stderr[-500:].split()))
    weights, context, measured = json.loads(done.stdout.splitlines()[-1])
    return Memory(weights + context, measured)
