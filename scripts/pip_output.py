"""What pip's output tells while it installs and compiles: what it is doing, and why it failed.

Needs nothing but Python, and an old one can read it: scripts/setup_venv.py refuses that by name.
"""

from __future__ import annotations

import re
import shutil
from typing import IO

from lock_file import canonical

COMPILED = "llama-cpp-python"
SECONDS_BETWEEN_LINES = 25  # where the output is a log

ADVICE = [
    (
        re.compile(
            r"CMAKE_C(XX)?_COMPILER (not set|could be found)|Could not find the compiler specified"
            r"|No such file or directory: '(cc|gcc|c\+\+|g\+\+|clang)'"
        ),
        "A C and a C++ compiler are needed. On Debian or Ubuntu: apt install build-essential",
    ),
    (
        re.compile(r"Killed signal terminated program|virtual memory exhausted|[Cc]annot allocate memory"),
        "Memory ran out. Compile one file at a time: CMAKE_BUILD_PARALLEL_LEVEL=1 make install",
    ),
    (
        re.compile(r"unsupported GNU version"),
        "This CUDA takes an older GCC only. Name one, such as with CUDAHOSTCXX=g++-12.",
    ),
    (
        re.compile(r"but the target was not found"),
        "A library of the GPU's toolkit is missing, such as cuBLAS: install the whole toolkit.",
    ),
    (re.compile(r"No space left on device"), "The disk is full. Free some space, here or in the folder $TMPDIR."),
    (
        re.compile(r"THESE PACKAGES DO NOT MATCH THE HASHES|must have their versions pinned|Hashes are required"),
        "A file is not the one that was locked. Nothing of it was installed. If the lock files are as they were "
        "published, look at where pip took it from (pip config list) before you trust it.",
    ),
    (
        re.compile(r"Could not find a version that satisfies|after connection broken by|Read timed out"),
        "The package index did not deliver. Check the network and pip's settings (pip config list).",
    ),
]


def phase_of(line: str) -> str | None:
    """What pip is doing, as far as one line of its verbose output tells; None where it does not."""
    if step := re.match(r"\s*\[(\d+)/(\d+)\] ", line):  # ninja, which compiles llama.cpp
        return f"compiling {COMPILED}, step {step[1]} of {step[2]}"
    if work := re.match(r"\s*Building wheel for (\S+) .*started", line):
        return f"building {canonical(work[1])}"
    if work := re.match(r"(Collecting|\s+Downloading) ([^\s<>=!~;\[(]+)", line):  # indented: a build's own needs
        return f"{work[1].strip().lower()} {work[2].rsplit('/')[-1]}"
    if line.startswith("Installing collected packages"):
        return "unpacking the packages"
    return None


class Progress:
    """The one line that shows that work goes on: live on a terminal, every so often in a log.

    Attributes:
        phase: what goes on; "" while all waits for what runs beside it.
        beside: what runs beside it; "" without anything.
    """

    def __init__(self, out: IO[str], clock: float) -> None:
        self._out = out
        self._live = out.isatty()
        self._started = clock
        self._shown = clock
        self.phase = "starting pip"
        self.beside = ""

    def tick(self, clock: float) -> None:
        """Show the phase again, if it is time to."""
        if clock - self._shown < (0.2 if self._live else SECONDS_BETWEEN_LINES):
            return
        self._shown = clock
        text = f"{minutes(clock - self._started):>7}  {'; '.join(filter(None, (self.phase, self.beside)))}"
        if self._live:
            self._out.write("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1])
        else:
            self._out.write(text + "\n")
        self._out.flush()

    def clear(self) -> None:
        """Leave the terminal's line empty."""
        if self._live:
            self._out.write("\r\x1b[K")
            self._out.flush()


def minutes(seconds: float) -> str:
    """A duration as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
