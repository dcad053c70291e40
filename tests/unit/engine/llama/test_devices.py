"""What llama.cpp says of the machine. Accelerators are made up: no such machine is at hand."""

import sys

import pytest

from modelyard.engine.llama import accelerators, check_devices, devices
from modelyard.engine.llama.backends import MissingBackend
from modelyard.engine.llama.devices import LlamaDevice, parse_features
from modelyard.errors import UnusableModel

# The package has a function of the same name.
on_this_machine = sys.modules["modelyard.engine.llama.devices"]


def device(name, kind):
    return LlamaDevice(name, "", kind, 0, 0)


def test_the_processor_is_a_device_with_memory():
    (cpu,) = (found for found in devices() if found.kind == "cpu")
    assert cpu.total_bytes > 0


def test_features_are_those_that_are_on():
    line = "CUDA : ARCHS = 890 | CPU : SSE3 = 1 | AVX512 = 0 | AVX2 = 1 | "
    assert parse_features(line) == ("SSE3", "AVX2")
    assert parse_features("") == ()


def test_an_integrated_accelerator_counts_where_there_is_no_other():
    cpu, gpu, igpu = device("CPU", "cpu"), device("CUDA0", "gpu"), device("Vulkan0", "igpu")
    assert accelerators([cpu, igpu, gpu]) == (gpu,)
    assert accelerators([cpu, igpu]) == (igpu,)
    assert accelerators([cpu]) == ()


def test_layers_for_an_accelerator_that_llama_cpp_was_not_built_for_are_refused(monkeypatch):
    monkeypatch.setattr(on_this_machine, "backends", lambda: ("CPU",))
    monkeypatch.setattr(on_this_machine, "devices", lambda: (device("CPU", "cpu"),))
    check_devices((0, 0))
    with pytest.raises(UnusableModel, match=r"device_layers gives 5 layers .* built for the CPU alone") as refused:
        check_devices((2, 3))
    assert "modelyard doctor" in str(refused.value)


def test_layers_for_an_accelerator_whose_library_is_missing_are_refused_with_the_reason(monkeypatch):
    missing = MissingBackend("cuda", "libcuda.so.1: cannot open shared object file")
    monkeypatch.setattr(on_this_machine, "missing_backends", lambda: (missing,))
    monkeypatch.setattr(on_this_machine, "devices", lambda: (device("CPU", "cpu"),))
    with pytest.raises(UnusableModel, match=r"built for cuda, .* cannot be loaded \(libcuda\.so\.1"):
        check_devices((7,))


def test_layers_for_a_device_that_is_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(on_this_machine, "devices", lambda: (device("CPU", "cpu"), device("CUDA0", "gpu")))
    check_devices((7,))
    with pytest.raises(UnusableModel, match=r"layers to device 1, but llama.cpp sees 1: 0 \(CUDA0\)\."):
        check_devices((7, 7))


def test_layers_for_a_device_without_its_driver_are_refused(monkeypatch):
    monkeypatch.setattr(on_this_machine, "backends", lambda: ("CUDA", "CPU"))
    monkeypatch.setattr(on_this_machine, "devices", lambda: (device("CPU", "cpu"),))
    with pytest.raises(UnusableModel, match=r"layers to device 0, but llama.cpp sees 0: none"):
        check_devices((7,))
