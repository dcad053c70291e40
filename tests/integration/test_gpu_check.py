"""scripts/gpu_check.py on this machine, whether it has a GPU or not, and on devices: see ``support.rpc_devices``."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import gpu_check
import pytest

from support.rpc_devices import rpc_devices

MIB = 1 << 20
ROWS = ["build", "doctor", *gpu_check.ROWS]


def checked(variables: Mapping[str, str]) -> dict[str, str]:
    """Run the check, and return the result of each row."""
    command = [sys.executable, str(Path(gpu_check.__file__))]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, timeout=330, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(.+?)  +(ok|failed|no device) ", done.stdout, re.MULTILINE))


@pytest.mark.long
@pytest.mark.timeout(360)
def test_all_rows_hold_on_this_machine() -> None:
    assert list(checked({})) == ROWS


@pytest.mark.long
@pytest.mark.timeout(420)
def test_all_rows_hold_on_devices() -> None:
    with rpc_devices(1400 * MIB, 1000 * MIB) as devices:
        assert checked(devices.environment) == dict.fromkeys(ROWS, "ok")
