"""The devices of this machine with their free memory, as a process of its own sees them.

The drivers of devices take memory for each process that asks them, and a driver, or a device of another process that is
gone, may end the process that asks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from modelyard.engine.placing import BACKEND_VARIABLE, LlamaDevice
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


# Parts of ggml that drive no devices, by the names of their files: libggml-base.so, libggml-cpu-haswell.so.
_NO_DEVICES: Final = frozenset({"base", "cpu", "blas", "amx"})
_PREFIX: Final = "ggml-"

# llama-cpp-python's variable for a folder with other libraries than its own.
_LIBRARIES_VARIABLE: Final = "LLAMA_CPP_LIB_PATH"


def may_have_accelerators(environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> bool:
    """Whether the installed llama.cpp may see any, by its files. Loads nothing, and asks no device.

    Args:
        environment: the environment variables.
        folder: with the libraries of llama.cpp; None: that of the installed one.
    """
    if environment.get(BACKEND_VARIABLE) or environment.get(_LIBRARIES_VARIABLE):
        return True
    folder = folder or _libraries()
    files = () if folder is None or not folder.is_dir() else folder.iterdir()
    names = (file.name.split(".")[0].removeprefix("lib") for file in files)
    return any(
        name.removeprefix(_PREFIX).split("-")[0] not in _NO_DEVICES for name in names if name.startswith(_PREFIX)
    )


def _libraries() -> Path | None:
    # Its modules would load llama.cpp.
    spec = find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "lib"
