"""A sample of the architectures that `make architectures` compares with transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 540

# A recurrent hybrid that has lost its prediction head.
SAMPLE = {"qwen3.5-headless": "Qwen3_5ForCausalLM"}


@pytest.mark.timeout(WAIT_S + 30)
def test_a_sample_of_architectures_answers_as_transformers_does(weights: dict[str, Path], tmp_path: Path) -> None:
    assert weights
    page = tmp_path / "models.md"
    path = os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests", "scripts"))
    done = subprocess.run(
        [sys.executable, "-m", "architectures", *SAMPLE, "--quick", "--out", str(page)],
        env={**os.environ, "PYTHONPATH": path, "ARCHITECTURES_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = {row[1]: row[2:] for line in page.read_text("utf-8").splitlines() if len(row := _cells(line)) > 9}
    for name, model in SAMPLE.items():
        its_class, text, _, _, _, suspend, reuse, _ = cells[name][:8]
        assert its_class == f"`{model}`"
        assert (text, suspend) == ("yes", "yes"), done.stdout
        assert reuse.startswith("yes"), done.stdout


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]
