"""Asking for the devices in a process of its own, also where that process fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.engine.hosts.device_list import list_devices, may_have_accelerators
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


CPU_ALONE = ("libggml.so", "libggml-base.so", "libggml-base.so.0", "libggml-cpu-haswell.so", "libllama.so")


@pytest.mark.parametrize(
    ("files", "may"),
    [
        (CPU_ALONE, False),
        ((*CPU_ALONE, "libggml-cuda.so"), True),
        ((*CPU_ALONE, "libggml-rpc.so.0"), True),
        (("ggml-base.dll", "ggml-cpu.dll", "ggml-vulkan.dll"), True),
        (("libggml-base.dylib", "libggml-blas.dylib", "libggml-cpu.dylib"), False),
        (("libggml-base.dylib", "libggml-blas.dylib", "libggml-metal.dylib"), True),
        ((), False),
    ],
)
def test_a_llama_cpp_for_the_cpu_alone_is_known_by_its_files(files: tuple[str, ...], may: bool, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).touch()
    assert may_have_accelerators({}, tmp_path) is may


def test_a_further_backend_may_have_accelerators(tmp_path: Path) -> None:
    assert may_have_accelerators({"GGML_BACKEND_PATH": "/x.so"}, tmp_path)
    assert not may_have_accelerators({}, tmp_path / "missing")
    assert not may_have_accelerators({})
