"""What models hear, converted from checkpoints and served, beside transformers. All families: make architectures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.sound_comparison import SoundResult

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 280


# It has the encoder of Whisper, as most others do.
@pytest.mark.long
@pytest.mark.parametrize("family", ["qwen2-audio"])
@pytest.mark.timeout(WAIT_S + 20)
def test_a_model_hears_what_it_hears_in_transformers(
    family: str, checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    program = ROOT / "tests" / "support" / "sound_comparison.py"
    paths = [str(ROOT / folder) for folder in ("src", "tests")]
    done = subprocess.run(
        [sys.executable, str(program), family, str(tmp_path), str(checkpoint), "1.5", "31"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = SoundResult(**json.loads(done.stdout.splitlines()[-1]))
    assert result.is_equal, result
