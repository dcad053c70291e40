"""Which GPUs and compilers a machine has, on machines that a test makes up."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.system.build_facts import build_facts, driver_version, gpu_makers, package_manager, release


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(path: Path, body: str) -> Path:
    written(path, f"#!/bin/sh\n{body}\n").chmod(0o755)
    return path


def render_node(root: Path, number: int, vendor: str) -> None:
    written(root / f"dev/dri/renderD{number}")
    written(root / f"sys/class/drm/renderD{number}/device/vendor", f"{vendor}\n")


def test_a_machine_without_gpus_has_none(tmp_path: Path):
    facts = build_facts(tmp_path, {"PATH": ""})
    assert facts.gpus == facts.without_driver == frozenset()
    assert (facts.nvcc, facts.hip, facts.has_glslc, facts.vulkan_header) == ("", (), False, 0)


def test_gpus_are_told_by_their_device_files_and_the_makers_of_their_render_nodes(tmp_path: Path):
    written(tmp_path / "dev/nvidia0")
    render_node(tmp_path, 128, "0x10de")
    render_node(tmp_path, 129, "0x8086")
    assert gpu_makers(tmp_path) == {"NVIDIA", "Intel"}
    written(tmp_path / "dev/kfd")
    assert gpu_makers(tmp_path) == {"NVIDIA", "Intel", "AMD"}


def test_gpus_of_virtual_machines_and_nvidias_without_its_own_driver_do_not_count(tmp_path: Path):
    for number, vendor in ((128, "0x1af4"), (129, "0x1414"), (130, "0x10de")):
        render_node(tmp_path, number, vendor)
    written(tmp_path / "dev/nvidiactl")
    assert gpu_makers(tmp_path) == frozenset()


def test_a_gpu_that_the_windows_subsystem_for_linux_passes_on_is_one(tmp_path: Path):
    written(tmp_path / "dev/dxg")
    assert gpu_makers(tmp_path) == frozenset()
    written(tmp_path / "usr/lib/wsl/lib/libcuda.so.1")
    assert gpu_makers(tmp_path) == {"NVIDIA"}


def test_a_gpu_on_the_bus_without_a_driver_is_told_from_other_devices(tmp_path: Path):
    for name, vendor, kind in (("0", "0x10de", "0x030200"), ("1", "0x10de", "0x040300"), ("2", "0x8086", "0x060000")):
        written(tmp_path / f"sys/bus/pci/devices/{name}/vendor", vendor)
        written(tmp_path / f"sys/bus/pci/devices/{name}/class", kind)
    assert build_facts(tmp_path, {"PATH": ""}).without_driver == {"NVIDIA"}
    written(tmp_path / "dev/nvidia0")
    assert build_facts(tmp_path, {"PATH": ""}).without_driver == frozenset()


def test_nvcc_is_found_where_its_installer_puts_it_although_it_is_not_on_the_path(tmp_path: Path):
    nvcc = program(
        tmp_path / "usr/local/cuda/bin/nvcc",
        'if [ "$1" = --version ]; then echo "Cuda compilation tools, release 13.0, V13.0.88"; '
        'else read -r _; echo "modelyard 13"; fi',
    )
    facts = build_facts(tmp_path, {"PATH": "/usr/bin:/bin"})
    assert (facts.nvcc, facts.is_nvcc_found, facts.cuda, facts.has_cublas) == (str(nvcc), False, (13, 0), True)
    on_path = build_facts(tmp_path, {"PATH": f"{nvcc.parent}:/usr/bin:/bin"})
    assert (on_path.nvcc, on_path.is_nvcc_found) == (str(nvcc), True)


def test_a_toolkit_whose_compiler_finds_no_cublas_has_none(tmp_path: Path):
    program(tmp_path / "usr/local/cuda/bin/nvcc", "echo 'fatal error: cublas_v2.h' >&2; exit 1")
    facts = build_facts(tmp_path, {"PATH": "/usr/bin:/bin"})
    assert (facts.cuda, facts.has_cublas) == ((), False)


def test_rocm_is_found_in_its_folder(tmp_path: Path):
    folder = tmp_path / "opt/rocm"
    program(folder / "bin/hipcc", "")
    clang = program(folder / "llvm/bin/clang", "")
    program(folder / "bin/hipconfig", f'[ "$1" = -l ] && echo {clang.parent} || echo 6.2.41134-65d174c3e')
    for header in ("hipblas/hipblas.h", "rocblas/rocblas.h"):
        assert not build_facts(tmp_path, {"PATH": ""}).has_hipblas
        written(folder / "include" / header)
    facts = build_facts(tmp_path, {"PATH": "/usr/bin:/bin"})
    assert (facts.hip, facts.hip_clang, facts.has_hipblas) == ((6, 2), str(clang), True)


def test_vulkans_headers_are_those_that_the_compiler_finds_in_the_sdk(tmp_path: Path):
    sdk = tmp_path / "sdk"
    written(sdk / "include/vulkan/vulkan_core.h", "#define VK_HEADER_VERSION 304\n")
    written(sdk / "include/spirv/unified1/spirv.hpp")
    program(sdk / "bin/glslc", "")
    facts = build_facts(tmp_path, {"PATH": "/usr/bin:/bin", "VULKAN_SDK": str(sdk)})
    assert (facts.has_glslc, facts.vulkan_header, facts.has_spirv_headers) == (True, 304, True)


def test_a_compiler_knows_amx_where_it_takes_the_flags_that_leave_it_out(tmp_path: Path):
    new, old = program(tmp_path / "new", 'echo "# 0"'), program(tmp_path / "old", "exit 1")
    assert build_facts(tmp_path, {"PATH": "/usr/bin:/bin", "CXX": str(new)}).knows_amx
    assert not build_facts(tmp_path, {"PATH": "/usr/bin:/bin", "CXX": f"{old} -pipe"}).knows_amx
    assert not build_facts(tmp_path, {"PATH": ""}).knows_amx


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.03  Tue Oct  7\nGCC version: 12.2.0", (580, 159)),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release Build", (565, 57)),
        ("", ()),
    ],
)
def test_the_version_of_nvidias_driver(text: str, version: tuple[int, ...]):
    assert driver_version(text) == version


def test_versions_of_compilers():
    assert release("Cuda compilation tools, release 12.4, V12.4.131") == (12, 4)
    assert release("6.2.41134-65d174c3e") == (6, 2)
    assert release("not found") == ()


@pytest.mark.parametrize(
    ("text", "manager"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n', "apt"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf"),
        ("ID=arch\n", "pacman"),
        ("ID=alpine\nVERSION_ID=3.20\n", ""),
        ("", ""),
    ],
)
def test_the_package_manager_is_that_of_the_distribution(text: str, manager: str):
    assert package_manager(text) == manager
