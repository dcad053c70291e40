"""Finds out exactly what a model will take of each device, without taking it.

llama.cpp plans all buffers of a model and its context, and allocates and reads nothing. That happens in a process of
its own, because llama.cpp ends its process on some files, and a driver of a device takes memory for each process that
uses it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Final

from modelyard.engine.hosts.last_words import how_it_ended
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import DeviceBytes, PlacedBytes
from modelyard.system.reporting_process import run_to_outcome

PROGRAM: Final = ("-m", "modelyard.engine.hosts.dry_load_program")

# Reading a vocabulary of 262,144 tokens takes a second, planning a graph of thousands of tensors another, and the
# driver of a device a few.
CPU_S: Final = 60.0
WALL_S: Final = 120.0


def run_dry_load(
    settings: EngineSettings,
    *,
    goes_on: Callable[[], bool] = lambda: True,
    wall_s: float = WALL_S,
    program: Sequence[str] = PROGRAM,
) -> PlacedBytes | None:
    """Return what a model takes of each device, and of the host; None where llama.cpp cannot tell on this system.

    It does not count what a draft model and a projector take.

    Args:
        settings: of the engine. With several devices its placement must say how they divide the model, which otherwise
            depends on what is free: see ``engine.placing``.
        goes_on: called ten times a second; if it returns False the process is ended.
        wall_s: limit of the wall-clock time.
        program: arguments of the interpreter that runs it.

    Raises:
        UnusableModel: llama.cpp cannot load the model there, the time ran out, or it was ended.
    """
    outcome, ended = run_to_outcome(program, pickle.dumps(settings), wall_s=wall_s, goes_on=goes_on)
    if "failure" in outcome:
        raise UnusableModel(str(outcome["failure"]))
    if "bytes" in outcome:
        sizes = outcome["bytes"]
        return None if sizes is None else {name: DeviceBytes(*parts) for name, parts in sizes.items()}
    if ended.is_late:
        raise UnusableModel(f"llama.cpp has not planned the memory of the model within {wall_s:.0f} s.")
    how = how_it_ended(ended.status, ended.log)
    raise UnusableModel(f"llama.cpp cannot plan the memory of the model: {how}.")
