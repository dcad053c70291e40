"""Make .venv and install Modelyard into it, at the versions and hashes of the lock files.

    python3 scripts/setup_venv.py [demo] [convert] [dev] [site]

Needs nothing but Python. Run it again after any failure or Ctrl-C: it carries on with what is there. pip's own settings
and CC and CXX reach pip unchanged.

llama.cpp is compiled for the GPU that the machine has, where what that needs is installed, and else for the CPU;
MODELYARD_BACKEND decides by hand, and CMAKE_ARGS says it in llama.cpp's own words. .venv/cmake-args keeps what it was
compiled with, and .venv/backend what was chosen: where that changes, it is compiled again (llama_build.py).

Whatever pip takes from an index is in a lock file with its SHA-256, also pip itself and what builds packages: nothing
is resolved here (--no-deps), and nothing is built in an environment that pip would fill by itself
(--no-build-isolation).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Iterator, NoReturn  # noqa: UP035 - an old Python must get as far as the message about it

from llama_build import CPU_INSTEAD, VARIABLE, Build, BuildRefused, Kept, plan_build
from lock_file import parse_lock, render
from pip_output import COMPILED, Progress, minutes
from setup_process import SetupError, run_beside, run_logged

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
CMAKE_INCLUDE = ROOT / "scripts" / "llama_cpp.cmake"
# CMake's arguments, as what builds llama-cpp-python reads them: https://scikit-build-core.readthedocs.io.
SKBUILD_ARGS = "SKBUILD_CMAKE_ARGS"
LOCKS = ROOT / "requirements"
LOG = VENV / "setup.log"
COMPILE_LOG = VENV / "compile.log"
WHEELS = VENV / "wheels"
OLDEST_PYTHON = (3, 11)
CMAKE_ARGS = VENV / "cmake-args"
BACKEND = VENV / "backend"

# A message of llama.cpp's kernels for AMX, which shows that a library has them.
AMX_MARK = b"AMX is not ready to be used!"

# Of each extra, what it adds to requirements.lock; torch comes after that.
EXTRAS = {
    "demo": ("demo.lock",),
    "convert": ("convert.lock",),
    "dev": ("convert.lock", "dev.lock"),
    "site": ("convert.lock", "dev.lock", "site.lock"),
}
NEED_TORCH = ("convert", "dev")


def hashed(*locks: Path) -> list[str]:
    """pip's arguments for what is in lock files: nothing else, and no file with another hash."""
    files = [option for lock in locks for option in ("-r", str(lock))]
    return ["--require-hashes", "--no-deps", "--no-build-isolation", *files]


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


def plan() -> Build:
    """How llama.cpp is to be built."""
    # The package is not installed yet.
    sys.path.insert(0, str(ROOT / "src"))
    from modelyard.system.build_facts import build_facts

    chosen = BACKEND.read_text(encoding="utf-8").strip() if BACKEND.exists() else ""
    try:
        return plan_build(os.environ, Kept(chosen, kept_cmake_args() if CMAKE_ARGS.exists() else None), build_facts)
    except BuildRefused as refused:
        raise SetupError(str(refused)) from refused


def announce_compile(python: Path, version: str, build: Build) -> None:
    """Say beforehand what may take minutes, and what it needs. A wheel in pip's cache would spare it: pip decides."""
    if build.notes:
        print("This machine has a GPU that llama.cpp is not built for:")
        for note in build.notes:
            print(f"  {note}")
        print(f"Then build it again: {VARIABLE}=auto make install")
    if installed_version(python, COMPILED) == version and not is_to_compile(python, build):
        return
    print(f"{COMPILED} {version} is to be installed{f', for {build.what}' if build.what else ''}.", end=" ")
    unless = "" if build.cmake_args else "unless pip has built it here before, "
    longer = ", and several times as long for a GPU" if build.what else ""
    print(f"It is compiled now, {unless}which takes about 3 minutes on 2 cores{longer}.")
    print(f"This machine has {os.cpu_count()} cores.")
    missing = [
        language
        for language, variable, names in (("C", "CC", "cc gcc clang"), ("C++", "CXX", "c++ g++ clang++"))
        if not os.environ.get(variable) and not any(map(shutil.which, names.split()))
    ]
    if missing:
        print(f"No {' or '.join(missing)} compiler is found, so this only works with a wheel that is already built.")
        print("On Debian or Ubuntu: apt install build-essential")
    sys.stdout.flush()


def installed_version(python: Path, name: str) -> str:
    """The version of a package in .venv; "" where it is not there."""
    query = f"from importlib.metadata import version; print(version('{name}'))"
    return subprocess.run([python, "-c", query], capture_output=True, text=True).stdout.strip()


def kept_cmake_args() -> str:
    """What llama.cpp in .venv was compiled with, as CMAKE_ARGS asked for it."""
    return CMAKE_ARGS.read_text(encoding="utf-8") if CMAKE_ARGS.exists() else ""


def has_amx_kernels() -> bool:
    """Whether llama.cpp in .venv was compiled with its kernels for AMX, such as by pip alone, whose wheel pip keeps."""
    libraries = VENV.glob("lib/python*/site-packages/llama_cpp/lib/libggml-cpu.so")
    return any(AMX_MARK in library.read_bytes() for library in libraries)


def rule_out_amx() -> None:
    """Have compilers leave out llama.cpp's kernels for AMX, which crash."""
    from modelyard.system.build_facts import knows_amx
    from modelyard.system.llama_builds import WITHOUT_AMX

    for variable, compiler, language in (("CFLAGS", "CC", "c"), ("CXXFLAGS", "CXX", "c++")):
        command = os.environ.get(compiler) or ("cc" if language == "c" else "c++")
        flags = os.environ.get(variable, "")
        if WITHOUT_AMX not in flags and knows_amx(command.split(), language):
            os.environ[variable] = f"{flags} {WITHOUT_AMX}".strip()


def spare_unused_parts() -> None:
    """Have llama.cpp compiled without what is not used, in half the time; beside CMAKE_ARGS, which users may give."""
    arguments = [argument for argument in os.environ.get(SKBUILD_ARGS, "").split(";") if argument]
    if not any("CMAKE_PROJECT_INCLUDE=" in argument for argument in arguments):
        os.environ[SKBUILD_ARGS] = ";".join([*arguments, f"-DCMAKE_PROJECT_INCLUDE={CMAKE_INCLUDE}"])


def is_to_compile(python: Path, build: Build) -> bool:
    """Whether llama.cpp is to be compiled otherwise than pip would, such as for a GPU: anew, or in another version."""
    if build.cmake_args != kept_cmake_args():
        return True
    return build.cmake_args != "" and installed_version(python, COMPILED) != locked_version(LOCK, COMPILED)


@contextmanager
def compiled_beside(python: Path, build: Build, progress: Progress, *, anew: bool) -> Iterator[None]:
    """Compile llama.cpp as it is to be built beside the body of the context, and install it afterwards.

    Compilers have all cores for minutes, while what else is installed waits for the network, and computes on one core.

    Args:
        anew: whether to compile where pip has a wheel, which may have been built otherwise.

    Raises:
        SetupError: it could not be compiled.
    """
    if anew:
        os.environ["CMAKE_ARGS"] = build.cmake_args
        for variable in ("CFLAGS", "CXXFLAGS"):
            flags = os.environ.get(variable, "")
            if build.flags not in flags:
                os.environ[variable] = f"{build.flags} {flags}".strip()
    (pin,) = [pin for pin in parse_lock(LOCK.read_text(encoding="utf-8")) if pin.name == COMPILED]
    lock = VENV / "compiled.lock"
    lock.write_text(render([pin]), encoding="utf-8")
    shutil.rmtree(WHEELS, ignore_errors=True)
    options = ["--no-cache-dir", "--no-binary", COMPILED] if anew else []
    command = pip(python, "wheel", ["--wheel-dir", str(WHEELS), *options, *hashed(lock)])
    with COMPILE_LOG.open("w", buffering=1, encoding="utf-8") as log:
        with run_beside(command, "The build of llama.cpp", log, progress, CPU_INSTEAD if build.what else ""):
            yield
        wheel = ["--no-index", "--find-links", str(WHEELS), "--no-deps", f"{pin.name}=={pin.version}"]
        run_pip(python, ["--force-reinstall", *wheel], log, progress)
    shutil.rmtree(WHEELS, ignore_errors=True)
    if anew and (build.cmake_args or CMAKE_ARGS.exists()):
        CMAKE_ARGS.write_text(build.cmake_args, encoding="utf-8")


def others_lock() -> Path:
    """Write the lock file without llama.cpp, which is installed by itself; its path."""
    pins = [pin for pin in parse_lock(LOCK.read_text(encoding="utf-8")) if pin.name != COMPILED]
    lock = VENV / "others.lock"
    lock.write_text(render(pins), encoding="utf-8")
    return lock


def pip(python: Path, work: str, arguments: list[str]) -> list[str]:
    """The command that has pip do some work: ``install`` or ``wheel``."""
    options = ["-v", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    return [str(python), "-m", "pip", work, *options, *arguments]


def run_pip(python: Path, arguments: list[str], log: IO[str], progress: Progress) -> None:
    """Run ``pip install``."""
    run_logged(pip(python, "install", arguments), "pip", log, progress)


def install_torch(python: Path, log: IO[str], progress: Progress) -> None:
    """Install torch without CUDA where pip finds that, and else as the package index has it: it only converts."""
    progress.phase = "looking for torch without CUDA"
    cpu = LOCKS / "torch-cpu.lock"
    wanted = locked_version(LOCKS / "torch.lock", "torch")
    if parse_lock(cpu.read_text(encoding="utf-8")) and installed_version(python, "torch") != wanted:
        try:
            run_pip(python, hashed(cpu), log, progress)
        except SetupError:
            log.write("There is no torch without CUDA for this system.\n")
        else:
            return
    run_pip(python, hashed(LOCKS / "torch.lock"), log, progress)


def build_page(python: Path, log: IO[str], progress: Progress) -> None:
    """Build the page at /ui, while llama.cpp is compiled; say so where it cannot be: everything else works without."""
    try:
        if not has_node():
            run_pip(python, hashed(LOCKS / "node.lock"), log, progress)
        progress.phase = "building the page at /ui"
        run_logged([str(python), "-P", str(ROOT / "scripts" / "build_ui.py")], "The build of the page", log, progress)
    except SetupError as failure:
        log.write(f"{failure}\n")
        print(f"The page at /ui was not built; {LOG.relative_to(ROOT)} says why. Everything else works.")
        print("To try again: make ui", flush=True)


def has_node() -> bool:
    """Whether the system has a Node that the page can be built with."""
    from build_ui import system_node

    return system_node() is not None


def locked_version(lock: Path, name: str) -> str:
    """The version of a package in a lock file."""
    (version,) = [pin.version for pin in parse_lock(lock.read_text(encoding="utf-8")) if pin.name == name]
    return version


def install(extras: list[str]) -> None:
    """Bring .venv to what pyproject.toml and requirements.lock say, with these extras."""
    started = time.monotonic()
    check_python()
    build = plan()
    python = make_venv()
    announce_compile(python, locked_version(LOCK, COMPILED), build)
    print(f"Installing; pip's output goes to {LOG.relative_to(ROOT)} and {COMPILE_LOG.name}", flush=True)
    progress = Progress(sys.stdout, started)
    locks = [LOCKS / name for extra in extras for name in EXTRAS[extra]]
    has_torch = bool(set(extras) & set(NEED_TORCH))
    with LOG.open("w", buffering=1, encoding="utf-8") as log:
        # First, and by itself: it brings the pip that does the rest.
        run_pip(python, hashed(LOCKS / "build.lock"), log, progress)
        rule_out_amx()
        spare_unused_parts()
        anew = is_to_compile(python, build)
        is_there = not anew and installed_version(python, COMPILED) == locked_version(LOCK, COMPILED)
        with nullcontext() if is_there else compiled_beside(python, build, progress, anew=anew):
            run_pip(python, hashed(others_lock(), *dict.fromkeys(locks)), log, progress)
            if has_torch:
                install_torch(python, log, progress)
            build_page(python, log, progress)
        if has_amx_kernels():
            # pip took a wheel that it had built before, without these flags.
            with compiled_beside(python, build, progress, anew=True):
                pass
        if VENV.is_dir():
            BACKEND.write_text(build.chosen, encoding="utf-8")
        # From here, with what is installed by now: nothing is fetched for it.
        run_pip(python, ["--no-index", "--no-deps", "--no-build-isolation", "-e", "."], log, progress)
        if has_torch:
            progress.phase = "fetching llama.cpp's converter"
            run_logged([str(python), "-P", "-m", "modelyard", "install-converter"], "modelyard", log, progress)
    print(f"Done in {minutes(time.monotonic() - started)}.")


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(extras: list[str]) -> int:
    """Run as a command; the exit status."""
    unknown = set(extras) - EXTRAS.keys()
    if unknown:
        print(f"Unknown: {', '.join(sorted(unknown))}. Known extras: {', '.join(EXTRAS)}.")
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
