"""scripts/gpu_check.py on this machine, whether it has a GPU or not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.timeout(360)
def test_all_rows_hold_on_this_machine():
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=330)
    results = dict(re.findall(r"^(.+?)  +(ok|seen|failed|no device) ", done.stdout, re.MULTILINE))
    assert done.returncode == 0, done.stdout
    assert list(results) == [
        *("build", "doctor", "two models that fit", "predicted, measured"),
        *("two that do not fit", "swap under load", "a split"),
    ]
