"""What is told of accelerators, on machines that a test makes up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelyard.doctor.devices import built_for, check_devices
from modelyard.doctor.finding import Finding
from modelyard.doctor.llama import LlamaFacts
from modelyard.system.llama_builds import BuildFacts

GB = 1_000_000_000
CPU = {"name": "CPU", "description": "Xeon", "kind": "cpu", "free_bytes": 30 * GB, "total_bytes": 32 * GB}
GPU = {"name": "CUDA0", "description": "RTX", "kind": "gpu", "free_bytes": 20 * GB, "total_bytes": 24 * GB}
IGPU = {"name": "Vulkan0", "description": "", "kind": "igpu", "free_bytes": 20 * GB, "total_bytes": 24 * GB}

FOR_CPU = LlamaFacts(version="0.5.0", backends=("CPU",), devices=(CPU,))
FOR_CUDA = LlamaFacts(
    version="0.5.0", can_offload=True, backends=("CUDA", "CPU"), devices=(CPU, GPU), accelerators=("CUDA0",)
)
CUDA_TOOLKIT: dict[str, Any] = {"nvcc": "/usr/bin/nvcc", "cuda": (12, 4), "has_cublas": True}


def found(llama: LlamaFacts, *, is_made_by_make: bool = False, gpus: tuple[Any, ...] = (), **has: Any) -> Finding:
    build = BuildFacts(package_manager="apt", gpus=frozenset(gpus), **has)
    return check_devices(llama, build, "0.3.36", is_made_by_make=is_made_by_make, without_amx=False)


def test_what_llama_cpp_was_built_for_is_told_with_the_devices_that_it_sees():
    finding = found(FOR_CUDA, gpus=("NVIDIA",))
    assert (finding.verdict, finding.advice) == ("ok", "")
    assert finding.value.splitlines() == [
        "llama.cpp was built for CUDA",
        "0: CUDA0 (RTX), 20.0 of 24.0 GB free",
        "also seen: CPU (Xeon), 30.0 of 32.0 GB free",
    ]
    assert finding.facts["built_for"] == ["CUDA"]


def test_devices_of_a_backend_that_llama_cpp_was_not_built_with_are_told():
    remote = {**GPU, "name": "RPC0", "description": ""}
    llama = replace(FOR_CPU, can_offload=True, backends=("CPU", "RPC"), devices=(CPU, remote), accelerators=("RPC0",))
    assert found(llama).value.splitlines()[:2] == [
        "llama.cpp was built for the CPU alone, and uses devices of a further backend",
        "0: RPC0, 20.0 of 24.0 GB free",
    ]


def test_a_gpu_that_the_build_does_not_serve_is_told():
    finding = found(FOR_CUDA, gpus=("NVIDIA", "AMD"))
    assert finding.value.endswith("not used: a GPU of AMD")
    assert finding.facts["unused"] == ["AMD"]
    assert "not used" not in found(replace(FOR_CUDA, backends=("Vulkan", "CPU")), gpus=("NVIDIA", "AMD")).value


def test_devices_are_shown_in_the_order_in_which_they_are_given_layers_and_others_behind_them():
    assert "0: Vulkan0, 20.0" in found(replace(FOR_CUDA, devices=(CPU, IGPU), accelerators=("Vulkan0",))).value
    assert "also seen: Vulkan0" in found(replace(FOR_CUDA, devices=(CPU, GPU, IGPU))).value
    remote = {**GPU, "name": "RPC0", "description": "127.0.0.1:50052"}
    both = replace(FOR_CUDA, devices=(CPU, GPU, remote), accelerators=("RPC0", "CUDA0"))
    _, first, second, _ = found(both).value.splitlines()
    assert first.startswith("0: RPC0")
    assert second.startswith("1: CUDA0")


@pytest.mark.parametrize(
    ("ggml", "backend"),
    [("CUDA", "cuda"), ("ROCm", "hip"), ("Vulkan", "vulkan"), ("MTL", "metal"), ("SYCL", "sycl")],
)
def test_backends_are_known_by_ggmls_names(ggml: str, backend: str):
    assert built_for(LlamaFacts(backends=(ggml, "RPC", "CPU"))) == (backend,)


def test_a_gpu_that_llama_cpp_was_not_built_for_has_the_one_command_that_builds_it():
    finding = found(FOR_CPU, gpus=("NVIDIA",), **CUDA_TOOLKIT)
    assert finding.verdict == "note"
    assert finding.value.startswith("a GPU of NVIDIA is there, but llama.cpp was built for the CPU alone")
    assert finding.advice == "Build llama.cpp for CUDA."
    assert finding.command.startswith('CFLAGS="-march=native" CXXFLAGS="-march=native" CMAKE_ARGS="-DGGML_CUDA=ON ')
    by_make = found(FOR_CPU, gpus=("NVIDIA",), is_made_by_make=True, **CUDA_TOOLKIT)
    assert by_make.command == "MODELYARD_BACKEND=cuda make install"


def test_a_toolkit_that_is_missing_is_installed_by_that_command_first():
    finding = found(FOR_CPU, gpus=("AMD",), is_made_by_make=True)
    assert "hipcc, is not found" in finding.advice
    assert finding.command == (
        "sudo apt install hipcc libhipblas-dev librocblas-dev && MODELYARD_BACKEND=hip make install"
    )


def test_a_gpu_without_a_driver_is_told():
    finding = found(FOR_CPU, without_driver=frozenset({"NVIDIA"}))
    assert finding.verdict == "note"
    assert "no driver of it is loaded here" in finding.advice


def test_a_backend_that_cannot_be_loaded_is_told_with_the_reason():
    reason = "libcuda.so.1: cannot open shared object file: No such file or directory"
    finding = found(replace(FOR_CPU, missing=({"name": "cuda", "reason": reason},)))
    assert finding.verdict == "note"
    assert finding.value.startswith(f"llama.cpp was built for CUDA, which cannot be loaded: {reason}")
    assert "driver" in finding.advice
    blas = {"name": "blas", "reason": "libopenblas.so.0: cannot open shared object file"}
    assert found(replace(FOR_CPU, missing=(blas,))).value.startswith("llama.cpp was built for blas, which cannot be")


def test_a_backend_that_cannot_be_loaded_is_told_beside_the_devices_of_another():
    finding = found(replace(FOR_CUDA, missing=({"name": "vulkan", "reason": "libvulkan.so.1: no such file"},)))
    assert finding.verdict == "ok"
    assert finding.value.endswith("cannot be loaded: Vulkan (libvulkan.so.1: no such file)")


def test_a_build_for_a_gpu_that_finds_no_device_is_told():
    finding = found(replace(FOR_CUDA, devices=(CPU,)))
    assert finding.value.startswith("llama.cpp was built for CUDA, but finds no device")
    assert "driver" in finding.advice


def test_without_a_gpu_the_cpu_computes_and_nothing_is_advised():
    finding = found(FOR_CPU, **CUDA_TOOLKIT)
    assert (finding.verdict, finding.advice, finding.command) == ("ok", "", "")
    assert finding.value.startswith("none; llama.cpp was built for the CPU alone")


def test_of_a_llama_cpp_that_cannot_be_loaded_no_device_is_known():
    assert found(LlamaFacts("It ended its process with SIGILL."), gpus=("AMD",)).value.startswith("not known")
