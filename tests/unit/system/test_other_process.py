from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from modelyard.system.announcements import start_of
from modelyard.system.other_process import other_process


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.parametrize("has_descriptors", [True, False])
def test_a_process_is_told_to_end_and_its_end_is_awaited(
    has_descriptors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_descriptors:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    with sleeping() as process, other_process(process.pid, start_of(process.pid)) as found:
        assert found is not None
        assert not found.ends_within(0.05)
        assert found.terminate()
        assert process.wait(20) == -signal.SIGTERM
        assert found.ends_within(20)
        assert not found.terminate()


def test_a_process_that_has_the_id_of_an_earlier_one_is_another() -> None:
    with other_process(os.getpid(), 1) as found:
        assert found is None


def test_a_process_that_has_ended_is_not_found() -> None:
    with sleeping() as process:
        start = start_of(process.pid)
        process.kill()
        process.wait(20)
        with other_process(process.pid, start) as found:
            assert found is None
