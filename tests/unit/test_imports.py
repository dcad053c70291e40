"""Importing is cheap: what is heavy is loaded where it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("fastapi", "huggingface_hub", "llama_cpp", "mcp", "numpy", "ray", "torch", "uvicorn")


@pytest.mark.parametrize("module", ["modelyard", "modelyard.cli", "modelyard.config", "modelyard.hub"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
