"""OpenAI's and Anthropic's npm clients, and the AI SDK, against the real server with real weights.

What they do is in npm/clients.mjs; their versions are in npm/package-lock.json.
"""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.server import RunningServer

HERE = Path(__file__).parent / "npm"
# Beside what the benchmarks keep, which git ignores, too.
INSTALLED = Path(__file__).parents[2] / ".bench" / "npm"
INSTALL_S, RUN_S = 240, 110


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """A folder with the packages of the lock file: installed once, and again where the lock file has changed."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    assert not missing, f"These tests need Node.js 20 or later: {', '.join(missing)} cannot be found. Install it."
    INSTALLED.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "clients.mjs", INSTALLED)
    done = INSTALLED / "installed-lock.json"
    if not done.exists() or not filecmp.cmp(HERE / "package-lock.json", done, shallow=False):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, INSTALLED)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        installed = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, timeout=INSTALL_S)
        assert installed.returncode == 0, f"npm ci failed:\n{installed.stderr}"
        shutil.copy(HERE / "package-lock.json", done)
    return INSTALLED


@pytest.mark.long
@pytest.mark.timeout(INSTALL_S + RUN_S)
def test_the_npm_clients_find_what_they_expect(server: RunningServer, node_modules: Path) -> None:
    command = ["node", "clients.mjs", f"{server.url}/v1"]
    ran = subprocess.run(command, cwd=node_modules, capture_output=True, text=True, timeout=RUN_S)
    assert ran.returncode == 0, ran.stderr
    outcome: dict[str, Any] = json.loads(ran.stdout)
    assert outcome["run"] >= 15
    assert outcome["failures"] == {}, "\n\n".join(f"{name}: {why}" for name, why in outcome["failures"].items())
