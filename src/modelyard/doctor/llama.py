"""Version and abilities of the installed llama.cpp, found out without loading it into this process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TIMEOUT_S: Final = 60.0
_UNUSABLE: Final = re.compile(r"LlamaCppUnusable: llama\.cpp cannot be loaded: (.*)\. `modelyard doctor` ")
_PROGRAM: Final = ("-m", "modelyard.engine.llama.report")


@dataclass(frozen=True, slots=True)
class LlamaFacts:
    """What the installed llama.cpp reports.

    Attributes:
        problem: why it cannot be used; "" where it can, and only then the other attributes are set.
        version: of llama.cpp.
        can_offload: whether it can give layers to an accelerator.
        backends: names of the backends that are loaded, such as "CUDA" and "CPU".
        missing: names of backends that it was built with and that cannot be loaded, and the reasons.
        features: processor features that it uses, such as "AVX2".
        devices: names, descriptions, kinds and bytes of devices; see ``llama.devices.LlamaDevice``.
        accelerators: names of those that models are put on, in the order of ``device_layers``.
    """

    problem: str = ""
    version: str = ""
    can_offload: bool = False
    backends: tuple[str, ...] = ()
    missing: tuple[Mapping[str, str], ...] = ()
    features: tuple[str, ...] = ()
    devices: tuple[Mapping[str, Any], ...] = ()
    accelerators: tuple[str, ...] = ()


def probe_llama(program: tuple[str, ...] = _PROGRAM, timeout_s: float = TIMEOUT_S) -> LlamaFacts:
    """Load llama.cpp in a child process, and return what it reports.

    Args:
        program: arguments of the Python interpreter, for a program that prints the facts as JSON.
        timeout_s: longest time that it may take.
    """
    try:
        done = subprocess.run(
            [sys.executable, *program], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return LlamaFacts(f"It did not load within {timeout_s:.0f} s.")
    except OSError as error:
        return LlamaFacts(f"No process could be started: {error.strerror}.")
    if done.returncode < 0:
        return LlamaFacts(f"It ended its process with {_signal_name(-done.returncode)}.")
    lines = done.stdout.splitlines()
    try:
        facts = json.loads(lines[-1])
        return LlamaFacts(
            version=facts["version"],
            can_offload=facts["can_offload"],
            backends=tuple(facts["backends"]),
            missing=tuple(facts["missing"]),
            features=tuple(facts["features"]),
            devices=tuple(facts["devices"]),
            accelerators=tuple(facts["accelerators"]),
        )
    except (IndexError, KeyError, ValueError):
        errors = done.stderr.strip().splitlines() or ["there is no error message"]
        # LlamaCppUnusable advises to run the doctor, which this is.
        own = _UNUSABLE.search(errors[-1])
        return LlamaFacts(f"It cannot be loaded: {own[1] if own else errors[-1]}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
