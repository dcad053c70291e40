"""What is done about an engine that hangs: its process is killed, where it has one of its own."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from modelyard.engine.scheduling.engine_table import EngineActivity
from modelyard.yard.runtime.engine_hosts import EngineHosts

REASON = "its process has been stopped by a signal for 300 s"


def test_one_on_a_thread_is_logged_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hosts = EngineHosts(folder=tmp_path)
    with caplog.at_level(logging.ERROR):
        hosts._on_stall(EngineActivity("smol", "", os.getpid(), "computing", (1,), ()), REASON)
    hosts.close()
    assert f"smol: its engine hangs: {REASON}. It runs on a thread, which goes on" in caplog.text


def test_a_process_that_is_gone_by_then_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hosts = EngineHosts(folder=tmp_path)
    with caplog.at_level(logging.ERROR):
        # Of no process that these hosts have started: nothing is sent a signal.
        hosts._on_stall(EngineActivity("smol", "", os.getppid(), "computing", (1,), ()), REASON)
    hosts.close()
    assert f"smol: its engine hangs: {REASON}. Its process is killed" in caplog.text
