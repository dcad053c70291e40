"""Environments for clients that cannot share the one of the tests, beside what the benchmarks keep (git ignores it)."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from filelock import FileLock

_ROOT: Final = Path(__file__).parents[2] / ".bench"

INSTALL_S: Final = 300
"""Bound of one installation."""


def python_environment(name: str, lock: Path) -> Path:
    """Return the Python of an environment with the packages of ``lock``, which is made where the lock has changed."""
    folder = _ROOT / "venvs" / name
    python, done = folder / "bin" / "python", folder / "installed.lock"
    with _locked(folder):
        if not done.exists() or not filecmp.cmp(lock, done, shallow=False):
            shutil.rmtree(folder, ignore_errors=True)
            uv = [sys.executable, "-m", "uv"]
            _run([*uv, "venv", "--quiet", "--python", sys.executable, folder])
            _run([*uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "--requirement", lock])
            shutil.copy(lock, done)
    return python


def npm_package(name: str, version: str, *, spelt: str = "") -> Path:
    """Return the folder of the npm package ``name``, installed once for each version.

    Args:
        spelt: what npm installs; the package's name and version where it is "".
    """
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    assert not missing, f"These tests need Node.js 20 or later: {', '.join(missing)} cannot be found. Install it."
    folder = _ROOT / "npm-packages" / f"{name.replace('/', '+')}@{version}"
    done = folder / "installed"
    with _locked(folder):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            options = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
            _run(["npm", "install", *options, spelt or f"{name}@{version}"], cwd=folder)
            done.touch()
    return folder / "node_modules" / name


def mcp_suite() -> Path:
    """Return the program of the conformance suite of MCP's authors.

    Its one import that needs Node.js 22, which none of the commands used here calls, is left out.
    """
    package = npm_package("@modelcontextprotocol/conformance", "0.1.16")
    head, imported, rest = (package / "dist" / "index.js").read_text().partition("globSync as o,")
    assert imported
    program = package / "dist" / "for_node_20.js"
    # Another test may read it.
    written = program.with_suffix(f".{os.getpid()}")
    written.write_text(f"{head}{rest}\nfunction o() {{ return []; }}\n")
    written.replace(program)
    return program


def _locked(folder: Path) -> FileLock:
    """Return the lock of a folder that tests of several processes use."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f"{folder.name}.lock"), timeout=INSTALL_S)


def _run(command: list[str | Path], cwd: Path | None = None) -> None:
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S)
    assert ran.returncode == 0, f"{' '.join(map(str, command))} failed:\n{ran.stdout}{ran.stderr}"
