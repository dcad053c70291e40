"""Which backend llama.cpp is built with, on machines that a test makes up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard.system.llama_builds import (
    BACKENDS,
    LABELS,
    Backend,
    BuildFacts,
    Maker,
    choose,
    cmake_args,
    compiler_flags,
    lack_for,
    serves,
)

BARE = BuildFacts(package_manager="apt")
# A machine on which everything can be built, and that has no GPU.
TOOLS = replace(
    BARE,
    nvcc="/usr/bin/nvcc",
    cuda=(12, 4),
    has_cublas=True,
    hip=(6, 2),
    hip_clang="/opt/rocm/lib/llvm/bin/clang",
    has_hipblas=True,
    has_glslc=True,
    vulkan_header=290,
    has_spirv_headers=True,
    has_icpx=True,
)


def with_gpus(facts: BuildFacts, *makers: Maker) -> BuildFacts:
    return replace(facts, gpus=frozenset(makers))


def test_without_a_gpu_llama_cpp_is_built_for_the_cpu_whatever_is_installed():
    assert choose(TOOLS) == choose(BARE)
    assert (choose(TOOLS).backend, choose(TOOLS).lacks) == ("cpu", ())


@pytest.mark.parametrize(
    ("makers", "backend", "served"),
    [
        (("NVIDIA",), "cuda", ("NVIDIA",)),
        (("AMD",), "hip", ("AMD",)),
        (("Intel",), "vulkan", ("Intel",)),
        (("Intel", "NVIDIA"), "cuda", ("NVIDIA",)),
        (("AMD", "Intel"), "hip", ("AMD",)),
    ],
)
def test_a_gpu_gets_the_backend_of_its_maker(makers: tuple[Maker, ...], backend: Backend, served: tuple[Maker, ...]):
    choice = choose(with_gpus(TOOLS, *makers))
    assert (choice.backend, choice.gpus, choice.lacks) == (backend, served, ())


@pytest.mark.parametrize(
    ("maker", "without", "missed"),
    [
        ("NVIDIA", {"nvcc": ""}, "nvcc"),
        ("NVIDIA", {"has_cublas": False}, "cuBLAS"),
        ("NVIDIA", {"cuda": (13, 0), "nvidia_driver": (570, 86)}, "driver 580 or newer, and 570.86 is loaded"),
        ("AMD", {"hip": ()}, "hipcc"),
        ("AMD", {"hip": (5, 7)}, "ROCm 6.1 or newer, and 5.7 is installed"),
        ("AMD", {"has_hipblas": False}, "hipBLAS"),
    ],
)
def test_without_the_makers_toolkit_vulkan_serves_its_gpu_and_what_is_missing_is_named(maker, without, missed):
    choice = choose(replace(with_gpus(TOOLS, maker), **without))
    assert (choice.backend, choice.gpus) == ("vulkan", (maker,))
    (lack,) = choice.lacks
    assert missed in str(lack)


def test_a_gpu_without_any_toolkit_is_named_with_what_installs_one_and_the_cpu_is_built():
    choice = choose(with_gpus(BARE, "NVIDIA"))
    assert choice.backend == "cpu"
    assert [str(lack) for lack in choice.lacks] == [
        "CUDA's compiler, nvcc, is not found. Install it: sudo apt install nvidia-cuda-toolkit",
        "Vulkan lacks its shader compiler (glslc), its headers, SPIR-V's headers. "
        "Install it: sudo apt install libvulkan-dev glslc spirv-headers",
    ]


@pytest.mark.parametrize(
    ("manager", "told"),
    [("dnf", "dnf install cuda-toolkit"), ("pacman", "pacman -S cuda"), ("", "https://developer.nvidia.com/")],
)
def test_the_command_is_that_of_the_distribution(manager, told):
    assert told in str(lack_for("cuda", replace(BARE, package_manager=manager)))


def test_vulkans_headers_of_debian_12_are_too_old_and_its_packages_are_no_way_out():
    lack = lack_for("vulkan", replace(TOOLS, vulkan_header=239))
    assert lack is not None
    assert "version 239, and llama.cpp needs 272" in lack.why
    assert "VULKAN_SDK" in str(lack)
    assert "apt" not in str(lack)


def test_a_driver_that_is_not_known_is_no_reason_against_cuda():
    assert lack_for("cuda", replace(TOOLS, cuda=(13, 0), nvidia_driver=())) is None
    assert lack_for("cuda", replace(TOOLS, cuda=(), nvidia_driver=(390, 1))) is None


def test_a_gpu_without_a_driver_is_named():
    choice = choose(replace(TOOLS, without_driver=frozenset({"NVIDIA"})))
    assert choice.backend == "cpu"
    assert "GPU of NVIDIA is in this machine, but no driver" in str(choice.lacks[0])


def test_macos_has_metal_where_its_compiler_is_installed():
    mac = BuildFacts(system="Darwin", machine="arm64", has_metal_compiler=True)
    assert choose(mac).backend == "metal"
    assert cmake_args("metal", mac) == ""
    assert cmake_args("cpu", mac) == "-DGGML_METAL=OFF"
    without = choose(replace(mac, has_metal_compiler=False))
    assert without.backend == "cpu"
    assert "xcode-select --install" in str(without.lacks[0])
    assert "not macOS" in str(lack_for("metal", TOOLS))


def test_sycl_needs_the_environment_of_oneapi():
    assert "setvars.sh" in str(lack_for("sycl", replace(TOOLS, has_icpx=False)))
    assert "icpx" in cmake_args("sycl", TOOLS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_of_a_gpu_is_a_library_of_its_own_so_that_the_cpu_computes_without_its_driver(backend: Backend):
    arguments = cmake_args(backend, with_gpus(TOOLS, "NVIDIA"))
    is_apart = backend in ("cuda", "hip", "vulkan", "sycl")
    assert ("-DGGML_BACKEND_DL=ON" in arguments) is is_apart
    assert compiler_flags(arguments) == ("-march=native" if is_apart else "")
    # ggml refuses GGML_NATIVE beside it on x86 alone.
    arm = replace(TOOLS, machine="aarch64")
    assert "GGML_NATIVE" not in cmake_args(backend, arm)
    assert compiler_flags(cmake_args(backend, arm)) == ""
    assert LABELS[backend]


def test_cuda_is_compiled_for_this_machines_gpus_where_it_has_some():
    assert "CMAKE_CUDA_ARCHITECTURES=native" in cmake_args("cuda", with_gpus(TOOLS, "NVIDIA"))
    assert "CMAKE_CUDA_ARCHITECTURES" not in cmake_args("cuda", TOOLS)


def test_compilers_that_cmake_does_not_find_are_named():
    apart = replace(TOOLS, nvcc="/usr/local/cuda/bin/nvcc", is_nvcc_found=False)
    assert "-DCMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc" in cmake_args("cuda", apart)
    assert "CUDA_COMPILER" not in cmake_args("cuda", TOOLS)
    assert "-DCMAKE_HIP_COMPILER=/opt/rocm/lib/llvm/bin/clang" in cmake_args("hip", TOOLS)


def test_vulkan_serves_the_gpus_of_all_makers_of_pc_hardware():
    assert all(serves("vulkan", maker) for maker in ("NVIDIA", "AMD", "Intel"))
    assert serves("sycl", "Intel")
    assert not serves("cuda", "AMD")
    assert not serves("cpu", "NVIDIA")
