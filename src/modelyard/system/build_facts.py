"""What this machine has for building llama.cpp: GPUs, their drivers, compilers and headers.

``scripts/setup_venv.py`` imports this before anything is installed: it needs the standard library alone.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from modelyard.system.llama_builds import WITHOUT_AMX, BuildFacts, Maker, PackageManager

ROOT: Final = Path("/")
TIMEOUT_S: Final = 20.0
# What a compiler prints of a small file; more is not read.
MAX_OUTPUT_CHARS: Final = 4_000_000

# PCI vendor ids. GPUs of virtual machines (virtio, Hyper-V, VMware, QEMU) compute nothing and are not listed.
_MAKERS: Final[Mapping[str, Maker]] = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_PCI_DISPLAY: Final = "0x03"
_MANAGERS: Final[Mapping[str, PackageManager]] = {
    "debian": "apt", "ubuntu": "apt", "fedora": "dnf", "rhel": "dnf", "centos": "dnf", "arch": "pacman",
}  # fmt: skip


def build_facts(root: Path = ROOT, environment: Mapping[str, str] = os.environ) -> BuildFacts:
    """Return what this machine has. Takes up to some seconds, for the compilers; each has ``TIMEOUT_S``.

    Args:
        root: where the folders of the system start.
        environment: variables that name SDKs and compilers.
    """
    gpus = gpu_makers(root)
    path = environment.get("PATH")
    nvcc, is_nvcc_found = _nvcc(root, environment)
    hipcc = _program("hipcc", path, _rocm(root, environment) / "bin")
    sdk = environment.get("VULKAN_SDK", "")
    glslc = _program("glslc", path, Path(sdk, "bin") if sdk else None)
    cxx = (environment.get("CXX") or shutil.which("c++", path=path) or "").split()
    vulkan = _preprocessed(cxx, "c++", "vulkan/vulkan_core.h", "VK_HEADER_VERSION", sdk)
    return BuildFacts(
        system=platform.system(),
        machine=platform.machine(),
        package_manager=package_manager(_text(root / "etc/os-release")),
        gpus=gpus,
        without_driver=_pci_makers(root) - gpus,
        nvidia_driver=driver_version(_text(root / "proc/driver/nvidia/version")),
        nvcc=nvcc,
        is_nvcc_found=is_nvcc_found,
        cuda=release(_output([nvcc, "--version"])) if nvcc else (),
        has_cublas=_preprocessed([nvcc] if nvcc else [], "cu", "cublas_v2.h", "CUBLAS_VER_MAJOR") is not None,
        hip=release(_output([str(Path(hipcc).with_name("hipconfig")), "--version"])) if hipcc else (),
        hip_clang=_hip_clang(hipcc) if hipcc else "",
        has_hipblas=_has_hipblas(_rocm(root, environment)),
        has_glslc=bool(glslc),
        vulkan_header=int(vulkan) if vulkan and vulkan.isdecimal() else 0,
        has_spirv_headers=_preprocessed(cxx, "c++", "spirv/unified1/spirv.hpp", "1", sdk) is not None,
        has_icpx=shutil.which("icpx", path=path) is not None,
        has_metal_compiler=platform.system() == "Darwin" and bool(_output(["xcode-select", "-p"])),
        knows_amx=knows_amx(cxx, "c++"),
    )


def knows_amx(compiler: Sequence[str], language: str) -> bool:
    """Return whether a compiler takes ``WITHOUT_AMX``; one that does not has no kernels for AMX either.

    Args:
        compiler: its command; empty where there is none.
        language: "c" or "c++".
    """
    return bool(compiler) and _output([*compiler, *WITHOUT_AMX.split(), "-x", language, "-E", "-"]) != ""


def gpu_makers(root: Path = ROOT) -> frozenset[Maker]:
    """Return the makers of the GPUs whose drivers are loaded, and whose device files this process sees."""
    found: set[Maker] = set()
    dev = root / "dev"
    # The Windows Subsystem for Linux has one device file for all GPUs, and CUDA's driver where there is one of NVIDIA.
    in_windows = (dev / "dxg").exists() and (root / "usr/lib/wsl/lib/libcuda.so.1").exists()
    if in_windows or any(dev.glob("nvidia[0-9]*")):
        found.add("NVIDIA")
    if (dev / "kfd").exists():
        found.add("AMD")
    for node in (dev / "dri").glob("renderD*"):
        maker = _MAKERS.get(_text(root / "sys/class/drm" / node.name / "device/vendor").strip())
        # Without NVIDIA's own driver such a node is that of nouveau, which runs no CUDA.
        if maker is not None and maker != "NVIDIA":
            found.add(maker)
    return frozenset(found)


def _pci_makers(root: Path) -> frozenset[Maker]:
    found = set()
    for device in (root / "sys/bus/pci/devices").glob("*"):
        maker = _MAKERS.get(_text(device / "vendor").strip())
        if maker is not None and _text(device / "class").startswith(_PCI_DISPLAY):
            found.add(maker)
    return frozenset(found)


def package_manager(os_release: str) -> PackageManager:
    """Return the package manager of a distribution from the text of its os-release."""
    names = " ".join(re.findall(r'^ID(?:_LIKE)?="?([^"\n]*)', os_release, re.MULTILINE)).split()
    return next((_MANAGERS[name] for name in names if name in _MANAGERS), "")


def driver_version(text: str) -> tuple[int, ...]:
    """Return the version of NVIDIA's driver from the text of /proc/driver/nvidia/version; () where it has none."""
    found = re.search(r"\b(\d{3})\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def release(text: str) -> tuple[int, ...]:
    """Return the version that ``nvcc --version`` or ``hipconfig --version`` prints; () where there is none."""
    found = re.search(r"release (\d+)\.(\d+)", text) or re.search(r"^(\d+)\.(\d+)", text, re.MULTILINE)
    return tuple(map(int, found.groups())) if found else ()


def _nvcc(root: Path, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return the path of CUDA's compiler, and whether CMake finds it by itself: on the path, or in CUDACXX."""
    named = environment.get("CUDACXX", "") or shutil.which("nvcc", path=environment.get("PATH"))
    if named:
        return named, True
    folders = [environment.get(name, "") for name in ("CUDA_PATH", "CUDA_HOME")]
    for folder in (*filter(None, folders), str(root / "usr/local/cuda"), str(root / "opt/cuda")):
        if os.access(Path(folder, "bin", "nvcc"), os.X_OK):
            return str(Path(folder, "bin", "nvcc")), False
    return "", True


def _rocm(root: Path, environment: Mapping[str, str]) -> Path:
    """Return where ROCm is, as llama.cpp's build looks for it (ggml-hip/CMakeLists.txt)."""
    named = environment.get("ROCM_PATH", "")
    if named and Path(named).exists():
        return Path(named)
    return root / "opt/rocm" if (root / "opt/rocm").exists() else root / "usr"


def _hip_clang(hipcc: str) -> str:
    folder = _output([str(Path(hipcc).with_name("hipconfig")), "-l"]).strip()
    clang = Path(folder, "clang")
    return str(clang) if folder and os.access(clang, os.X_OK) else ""


def _has_hipblas(rocm: Path) -> bool:
    return all((rocm / "include" / header).exists() for header in ("hipblas/hipblas.h", "rocblas/rocblas.h"))


def _program(name: str, path: str | None, folder: Path | None) -> str:
    found = shutil.which(name, path=path)
    if found is None and folder is not None and os.access(folder / name, os.X_OK):
        found = str(folder / name)
    return found or ""


def _preprocessed(compiler: Sequence[str], language: str, header: str, macro: str, sdk: str = "") -> str | None:
    """Return what a macro stands for behind a header, as the compiler finds it; None where there is no such header."""
    if not compiler:
        return None
    include = ["-I", str(Path(sdk, "include"))] if sdk else []
    program = f"#include <{header}>\nmodelyard {macro}\n"
    output = _output([*compiler, "-x", language, *include, "-E", "-"], program)
    found = re.search(r"^modelyard (.*)$", output, re.MULTILINE)
    return found[1].strip() if found else None


def _output(command: list[str], program: str = "") -> str:
    """Return what a program prints; "" where it cannot be started, fails, or takes too long."""
    try:
        done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout[-MAX_OUTPUT_CHARS:] if done.returncode == 0 else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
