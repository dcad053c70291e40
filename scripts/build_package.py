"""Build the wheel and the source archive into dist/, check them, and try them as a new user would: ``make package``.

The wheel is built from the source archive, not from the checkout, so that an archive that lacks a file is found out.
Both are then installed into a fresh virtual environment outside the tree, with the versions of dependencies that pip
chooses today. Their command serves a model from an empty home folder, and the model answers a chat.

llama.cpp is compiled in that installation, which takes minutes, unless pip has a wheel of it in its cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from checked_server import CheckFailed, Server, asked, free_port, running
from demo_weights import WeightsUnavailable, prepare
from package_contents import source_problems, wheel_problems
from setup_venv import hashed

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
LOCKS = ROOT / "requirements"

MAX_BUILD_S = 600.0
# llama.cpp is compiled in it, on however few cores.
MAX_INSTALL_S = 3600.0
MAX_COMMAND_S = 60.0

# Of the user's environment, what would have Python or the command find another installation or configuration.
_MISLEADING = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


class PackageFailed(Exception):
    """The packages cannot be built, or one of them is not right; the message says which and why."""


def build(python: Path, scratch: Path) -> tuple[Path, Path]:
    """Build the source archive from the checkout, and the wheel from the source archive, into dist/.

    Args:
        python: has what builds them.
        scratch: an empty folder.

    Returns:
        The source archive and the wheel.

    Raises:
        PackageFailed: a build fails.
    """
    DIST.mkdir(exist_ok=True)
    for old in DIST.glob("modelyard-*"):
        old.unlink()
    command = [str(python), "-m", "hatchling", "build", "-d", str(DIST)]
    run([*command, "-t", "sdist"], ROOT, MAX_BUILD_S)
    (archive,) = DIST.glob("modelyard-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    (source,) = scratch.iterdir()
    run([*command, "-t", "wheel"], source, MAX_BUILD_S)
    (wheel,) = DIST.glob("modelyard-*.whl")
    return archive, wheel


def check_contents(archive: Path, wheel: Path) -> None:
    """Check which files are in the packages.

    Raises:
        PackageFailed: one is missing, or does not belong there.
    """
    with tarfile.open(archive) as packed:
        problems = [f"{archive.name}: {each}" for each in source_problems(packed.getnames())]
    with zipfile.ZipFile(wheel) as zipped:
        problems += [f"{wheel.name}: {each}" for each in wheel_problems(zipped.namelist())]
    if problems:
        raise PackageFailed("\n".join(problems))


def fresh_venv(folder: Path) -> Path:
    """Make a virtual environment with nothing but pip in it.

    Returns:
        Its Python.
    """
    run([sys.executable, "-m", "venv", str(folder)], folder.parent, MAX_BUILD_S)
    return folder / "bin" / "python"


def install(python: Path, arguments: Sequence[str]) -> None:
    """Run ``pip install``, with the user's settings of pip.

    Raises:
        PackageFailed: it fails.
    """
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *arguments]
    run(command, python.parent, MAX_INSTALL_S)


def try_installed(commands: Path, home: Path, weights: Path, version: str) -> str:
    """Serve a model with an installed command, and chat with it.

    Args:
        commands: the folder of the installed command.
        home: an empty folder, which becomes home and working directory.
        weights: a GGUF file.
        version: what the command has to be.

    Returns:
        What the model answered.

    Raises:
        PackageFailed: the command is another version, or does not answer.
    """
    command = str(commands / "modelyard")
    environment = {**clean_environment(os.environ), "HOME": str(home), "PATH": f"{commands}{os.pathsep}/usr/bin:/bin"}
    printed = run([command, "--version"], home, MAX_COMMAND_S, environment).strip()
    if printed != f"modelyard {version}":
        raise PackageFailed(f"{command} --version printed {printed!r}, not version {version}")
    port = free_port()
    try:
        with running([command, "serve", str(weights)], weights, port, home / "serve.log", home, environment) as server:
            return _chat(server)
    except CheckFailed as failed:
        raise PackageFailed(f"modelyard serve, of {commands.parent}: {failed}") from failed


def _chat(server: Server) -> str:
    body = {"model": "default", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}
    answer = str(asked(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"])
    if not answer.strip():
        raise CheckFailed("the chat's answer is empty")
    return answer


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what would lead Python, or the command, to another installation or to its files."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _MISLEADING and not name.startswith(("MODELYARD_", "HF_"))
    }


def run(command: Sequence[str], folder: Path, timeout_s: float, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end.

    Returns:
        What it printed.

    Raises:
        PackageFailed: it fails or takes longer than ``timeout_s``; the message has the end of its output.
    """
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=clean_environment(os.environ) if environment is None else environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageFailed(f"{shown}: {error}") from error
    if done.returncode:
        raise PackageFailed(f"{done.stdout[-4000:]}\n{shown} ended with {done.returncode}")
    return done.stdout


def make_packages(weights: Path, *, is_tried: bool) -> None:
    """Build, check and try the packages, each step with a line on the screen.

    Raises:
        PackageFailed, WeightsUnavailable: a step fails.
    """
    with tempfile.TemporaryDirectory(prefix="modelyard-package-") as name:
        scratch = Path(name)
        began = time.monotonic()

        def report(text: str) -> None:
            print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

        tools = fresh_venv(scratch / "tools")
        install(tools, hashed(LOCKS / "build.lock", LOCKS / "package.lock"))
        (scratch / "source").mkdir()
        archive, wheel = build(tools, scratch / "source")
        report(f"built {archive.name} and, from it, {wheel.name}")
        check_contents(archive, wheel)
        run([str(tools), "-m", "twine", "--no-color", "check", "--strict", str(archive), str(wheel)], DIST, MAX_BUILD_S)
        report("their contents and their metadata are right")
        if not is_tried:
            return
        model = prepare(weights)["smollm2"].resolve()
        version = wheel.name.split("-")[1]
        fresh = fresh_venv(scratch / "fresh")
        install(fresh, [str(wheel)])
        report("installed the wheel in an empty environment")
        for kind, again in (("wheel", ()), ("source", ("--force-reinstall", "--no-deps", str(archive)))):
            if again:
                install(fresh, again)
                report("installed the source archive in its place")
            home = scratch / f"home-{kind}"
            home.mkdir()
            answer = try_installed(fresh.parent, home, model, version)
            report(f"modelyard serve {model.name}: {json.dumps(answer, ensure_ascii=False)}")


def main() -> int:
    """Run as a command; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only-build", action="store_true", help="build and check the packages, and install nothing")
    options = parser.parse_args()
    try:
        make_packages(ROOT / ".weights", is_tried=not options.only_build)
    except (PackageFailed, WeightsUnavailable) as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"Built: {', '.join(sorted(f'dist/{path.name}' for path in DIST.glob('modelyard-*')))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
