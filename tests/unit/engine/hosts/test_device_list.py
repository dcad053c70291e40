"""Asking for the devices in a process of its own, also where that process fails."""

from __future__ import annotations

import pytest

from modelyard.engine.hosts.device_list import list_devices
from modelyard.engine.placing import LlamaDevice
from modelyard.errors import UnusableModel

DEVICE = '{"name": "CUDA0", "description": "", "kind": "gpu", "free_bytes": 5, "total_bytes": 9}'


def test_the_devices_of_this_machine_are_listed() -> None:
    (cpu,) = (device for device in list_devices() if device.kind == "cpu")
    assert cpu.total_bytes > 0


def test_devices_are_read_from_the_report() -> None:
    program = f"print('ggml: a message'); print('{{\"devices\": [{DEVICE}]}}')"
    assert list_devices(program=("-c", program)) == (LlamaDevice("CUDA0", "", "gpu", 5, 9),)


@pytest.mark.parametrize("program", ["exit(3)", "import time; time.sleep(60)"], ids=["ends", "never answers"])
def test_a_process_that_does_not_answer_is_an_error(program: str) -> None:
    with pytest.raises(UnusableModel, match="cannot be asked"):
        list_devices(program=("-c", program), wall_s=0.05)
