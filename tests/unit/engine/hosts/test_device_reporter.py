"""Asking for the devices in a process of its own, also where that process ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from modelyard.engine.hosts.device_reporter import DeviceReporter
from modelyard.errors import UnusableModel

DEVICE = '{"name": "CUDA0", "description": "", "kind": "gpu", "free_bytes": %d, "total_bytes": 9}'
COUNTING = f"import sys\nfor n, _ in enumerate(sys.stdin): print('[' + '{DEVICE}' % n + ']', flush=True)"


@contextmanager
def reporter(program: str, **options: float) -> Iterator[DeviceReporter]:
    with closing(DeviceReporter(("-c", program), **options)) as made:
        yield made


def test_the_devices_of_this_machine_are_told() -> None:
    with closing(DeviceReporter()) as asked:
        (cpu,) = (device for device in asked.read() if device.kind == "cpu")
    assert cpu.total_bytes > 0


def test_one_process_answers_all_calls() -> None:
    with reporter(COUNTING) as asked:
        assert [asked.read()[0].free_bytes for _ in range(3)] == [0, 1, 2]


def test_after_the_end_of_the_process_another_one_is_asked(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    program = (
        f"import os\ninput()\nif not os.path.exists({str(begun)!r}):\n    open({str(begun)!r}, 'w')\n    exit(1)\n"
        f"print('[' + '{DEVICE}' % 5 + ']', flush=True)\ninput()"
    )
    with reporter(program) as asked:
        with pytest.raises(UnusableModel, match="ended"):
            asked.read()
        assert asked.read()[0].free_bytes == 5


def test_a_process_that_ends_at_once_is_an_error() -> None:
    with reporter("exit(3)") as asked, pytest.raises(UnusableModel, match="ended"):
        asked.read()


def test_a_process_that_does_not_answer_is_given_up() -> None:
    with reporter("import time; time.sleep(60)", wait_s=0.05) as asked, pytest.raises(UnusableModel, match="answer"):
        asked.read()


def test_what_is_no_list_of_devices_is_an_error() -> None:
    with reporter("input(); print('[{}]', flush=True); input()") as asked, pytest.raises(UnusableModel):
        asked.read()


def test_closing_twice_is_as_good_as_once() -> None:
    asked = DeviceReporter(("-c", COUNTING))
    asked.read()
    asked.close()
    asked.close()
