"""LiteLLM, instructor, Pydantic AI, OpenAI's Agents SDK and LlamaIndex against the real server with real weights.

What they do is in pypi/clients.py; their versions are in pypi/clients.lock, which ``uv pip compile --universal
--generate-hashes`` writes from clients.in.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.client_environments import INSTALL_S, python_environment
from support.server import RunningServer

HERE = Path(__file__).parent / "pypi"
# Half a minute of processor time, most of it imports.
RUN_S = 300


@pytest.mark.long
@pytest.mark.timeout(INSTALL_S + RUN_S)
def test_the_libraries_above_openais_client_find_what_they_expect(server: RunningServer) -> None:
    python = python_environment("clients", HERE / "clients.lock")
    ran = subprocess.run(
        [python, HERE / "clients.py", f"{server.url}/v1"],
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    assert ran.returncode == 0, ran.stderr
    # LiteLLM prints to standard output, too.
    outcome: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert outcome["run"] >= 13
    assert outcome["failures"] == {}, "\n\n".join(f"{name}: {why}" for name, why in outcome["failures"].items())
