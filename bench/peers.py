"""The systems to compare with, each in a virtual environment of its own, from PyPI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console

VERSIONS = {
    "mistralrs": "mistralrs==0.9.5",
    # No wheel: it is compiled, some six minutes.
    "llama-cpp-python": "llama-cpp-python[server]==0.3.36",
}


def environment(name: str, folder: Path, console: Console) -> Path:
    """The Python that has the peer ``name``, installed where it is not yet.

    Raises:
        RuntimeError: it cannot be installed; the message is pip's last line.
    """
    home = folder / "venvs" / name
    python, done = home / "bin" / "python", home / "installed"
    if done.exists() and done.read_text() == VERSIONS[name]:
        return python
    with console.status(f"Installing {VERSIONS[name]}"):
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", VERSIONS[name]]
        installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    if installed.returncode:
        raise RuntimeError(f"pip cannot install {VERSIONS[name]}: {installed.stderr.strip().splitlines()[-1]}")
    done.write_text(VERSIONS[name])
    return python
