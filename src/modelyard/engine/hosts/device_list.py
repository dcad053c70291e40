"""The devices of this machine with their free memory, as a process of its own sees them.

The drivers of devices take memory for each process that asks them, and a driver, or a device of another process that is
gone, may end the process that asks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel
from modelyard.system.reporting_process import run_reporting

PROGRAM: Final = ("-m", "modelyard.engine.llama.report")

# Loading llama.cpp and initialising a driver takes seconds.
WALL_S: Final = 60.0


def list_devices(*, program: Sequence[str] = PROGRAM, wall_s: float = WALL_S) -> tuple[LlamaDevice, ...]:
    """Return all devices, as they are now.

    Args:
        program: arguments of the interpreter that runs it.
        wall_s: limit of the wall-clock time.

    Raises:
        UnusableModel: they cannot be asked: llama.cpp cannot be loaded, or a device is gone.
    """
    found: list[LlamaDevice] | None = None

    def on_report(facts: dict[str, Any]) -> bool:
        nonlocal found
        if "devices" in facts:
            found = [LlamaDevice(**device) for device in facts["devices"]]
        return True

    run_reporting(program, os.environ, on_report, wall_s=wall_s)
    if found is None:
        raise UnusableModel("The devices of this machine cannot be asked for their memory: see `modelyard doctor`.")
    return tuple(found)
