"""Which backend llama.cpp is built with on a machine, with which options, and what a better one lacks. Pure.

``scripts/setup_venv.py`` imports this before anything is installed: it needs the standard library alone.

Backends of GPUs are built as libraries that ggml loads at run time (GGML_BACKEND_DL). By default they are linked into
llama.cpp, and then a missing driver or toolkit (libcuda.so.1 in a container, SYCL's libraries without its environment)
keeps all of llama.cpp from loading. Loaded at run time, such a backend is left out and the CPU computes.

Source: llama.cpp, docs/build.md, and CMakeLists.txt of ggml and of ggml-cuda, ggml-hip and ggml-vulkan, as of b11739.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Backend = Literal["cuda", "hip", "vulkan", "metal", "sycl", "cpu"]
Maker = Literal["NVIDIA", "AMD", "Intel", "Apple"]
PackageManager = Literal["apt", "dnf", "pacman", ""]

BACKENDS: Final[tuple[Backend, ...]] = ("cuda", "hip", "vulkan", "metal", "sycl", "cpu")
# Name of a backend in ggml -> here. HIP is ggml's CUDA backend, built by another compiler.
GGML_NAMES: Final[Mapping[str, Backend]] = {
    "CUDA": "cuda", "ROCm": "hip", "Vulkan": "vulkan", "MTL": "metal", "Metal": "metal", "SYCL": "sycl",
}  # fmt: skip
LABELS: Final[Mapping[Backend, str]] = {
    "cuda": "CUDA", "hip": "ROCm", "vulkan": "Vulkan", "metal": "Metal", "sycl": "SYCL", "cpu": "CPU",
}  # fmt: skip

# vk::LayerSettingEXT, which ggml-vulkan.cpp uses, is in Vulkan's headers from 1.3.272 on.
MIN_VULKAN_HEADER: Final = 272
# Source: ggml-hip/CMakeLists.txt.
MIN_HIP: Final = (6, 1)
# Major version of CUDA's toolkit -> oldest branch of the driver that runs its programs. Source: NVIDIA, CUDA Toolkit
# release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility".
MIN_DRIVER: Final[Mapping[int, int]] = {11: 450, 12: 525, 13: 580}

# llama.cpp's kernels for AMX end the process with a segmentation fault on some models, and GCC before 12.4 and 13.3
# miscompiles them (https://gcc.gnu.org/PR114098). What a processor has is compiled in unless it is ruled out. These are
# flags of GCC and Clang.
WITHOUT_AMX: Final = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"

# What serves a GPU, the best first.
_PREFERRED: Final[Mapping[Maker, tuple[Backend, ...]]] = {
    "NVIDIA": ("cuda", "vulkan"),
    "AMD": ("hip", "vulkan"),
    "Intel": ("vulkan",),
    "Apple": ("metal",),
}

_OPTIONS: Final[Mapping[Backend, str]] = {
    "cuda": "-DGGML_CUDA=ON", "hip": "-DGGML_HIP=ON", "vulkan": "-DGGML_VULKAN=ON",
    "sycl": "-DGGML_SYCL=ON -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx",
}  # fmt: skip
_LOADED_AT_RUN_TIME: Final = "-DGGML_BACKEND_DL=ON"
# On x86, GGML_NATIVE excludes GGML_BACKEND_DL. -march=native takes its place, so no feature is added by name.
_NATIVE_BY_FLAG: Final = f"{_LOADED_AT_RUN_TIME} -DGGML_NATIVE=OFF"
_NO_FEATURE_BY_NAME: Final = " ".join(
    f"-DGGML_{feature}=OFF" for feature in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
)
_X86: Final = ("x86_64", "amd64", "AMD64", "i686")

# Commands that install what a backend is built with.
_PACKAGES: Final[Mapping[Backend, Mapping[PackageManager, str]]] = {
    "cuda": {
        "apt": "sudo apt install nvidia-cuda-toolkit",
        "dnf": "sudo dnf install cuda-toolkit",
        "pacman": "sudo pacman -S cuda",
    },
    "hip": {
        "apt": "sudo apt install hipcc libhipblas-dev librocblas-dev",
        "dnf": "sudo dnf install rocm-hip-devel hipblas-devel rocblas-devel",
        "pacman": "sudo pacman -S rocm-hip-sdk",
    },
    "vulkan": {
        "apt": "sudo apt install libvulkan-dev glslc spirv-headers",
        "dnf": "sudo dnf install vulkan-loader-devel vulkan-headers glslc spirv-headers-devel",
        "pacman": "sudo pacman -S vulkan-headers vulkan-icd-loader shaderc spirv-headers",
    },
}
# Where the makers describe it, for systems whose packages are not known or are too old.
_SOURCES: Final[Mapping[Backend, str]] = {
    "cuda": "https://developer.nvidia.com/cuda-downloads",
    "hip": "https://rocm.docs.amd.com",
    "vulkan": "https://vulkan.lunarg.com/sdk/home",
    "sycl": "https://www.intel.com/oneapi",
}


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """What a machine has for building llama.cpp.

    Attributes:
        system: "Linux" or "Darwin", as ``platform.system`` names it.
        machine: the processor's architecture, such as "x86_64".
        package_manager: that of the distribution; "" where it is none of those that are known.
        gpus: makers of the GPUs whose drivers are loaded.
        without_driver: makers of GPUs on the PCI bus for which no driver is loaded here.
        nvidia_driver: version of NVIDIA's driver, such as (580, 65); () where it is not known.
        nvcc: path of CUDA's compiler; "" where there is none.
        is_nvcc_found: whether CMake finds that compiler by itself.
        cuda: version of CUDA's toolkit, such as (13, 0); () where it is not known.
        has_cublas: whether the toolkit has cuBLAS.
        hip: version of HIP, such as (6, 2); () without hipcc.
        hip_clang: path of the compiler that hipcc calls; "" where it is not known.
        has_hipblas: whether hipBLAS and rocBLAS have their headers.
        has_glslc: whether there is Vulkan's shader compiler.
        vulkan_header: the last number of the version of Vulkan's headers; 0 where there are none.
        has_spirv_headers: whether SPIR-V's headers are there.
        has_icpx: whether oneAPI's compiler is on the path, which its environment puts there.
        has_metal_compiler: whether Xcode's command line tools are installed.
        knows_amx: whether the C++ compiler takes ``WITHOUT_AMX``; one that does not has no kernels for AMX either.
    """

    system: str = "Linux"
    machine: str = "x86_64"
    package_manager: PackageManager = ""
    gpus: frozenset[Maker] = frozenset()
    without_driver: frozenset[Maker] = frozenset()
    nvidia_driver: tuple[int, ...] = ()
    nvcc: str = ""
    is_nvcc_found: bool = True
    cuda: tuple[int, ...] = ()
    has_cublas: bool = False
    hip: tuple[int, ...] = ()
    hip_clang: str = ""
    has_hipblas: bool = False
    has_glslc: bool = False
    vulkan_header: int = 0
    has_spirv_headers: bool = False
    has_icpx: bool = False
    has_metal_compiler: bool = False
    knows_amx: bool = False


@dataclass(frozen=True, slots=True)
class Lack:
    """Why llama.cpp cannot be built for a backend.

    Attributes:
        backend: the backend.
        why: what is missing, as a sentence.
        command: the shell command that installs it; "" where none is known.
        way_out: what to do where there is no command; "" for nothing.
    """

    backend: Backend
    why: str
    command: str = ""
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.why} {f'Install it: {self.command}' if self.command else self.way_out}".rstrip()


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend for a machine.

    Attributes:
        backend: the best one that can be built there.
        gpus: makers of the GPUs that it serves; none for "cpu".
        lacks: what the machine has a GPU for, but cannot be built there.
    """

    backend: Backend
    gpus: tuple[Maker, ...] = ()
    lacks: tuple[Lack, ...] = ()


def choose(facts: BuildFacts) -> Choice:
    """Return the best backend that can be built on a machine; "cpu" where there is no GPU, or no toolkit for it."""
    if facts.system == "Darwin":
        lack = lack_for("metal", facts)
        return Choice("metal", ("Apple",)) if lack is None else Choice("cpu", lacks=(lack,))
    lacks: list[Lack] = []
    served: dict[Backend, list[Maker]] = {}
    for maker, backends in _PREFERRED.items():
        if maker not in facts.gpus:
            continue
        for backend in backends:
            lack = lack_for(backend, facts)
            if lack is None:
                served.setdefault(backend, []).append(maker)
                break
            if lack not in lacks:
                lacks.append(lack)
    for maker in sorted(facts.without_driver - facts.gpus):
        backend = _PREFERRED[maker][0]
        why = f"A GPU of {maker} is in this machine, but no driver of it is loaded here."
        lacks.append(Lack(backend, why, way_out="Install the driver, or give the GPU to this container."))
    if not served:
        return Choice("cpu", lacks=tuple(lacks))
    # One backend is built; the maker that comes first in _PREFERRED decides.
    backend, makers = next(iter(served.items()))
    return Choice(backend, tuple(makers), tuple(lack for lack in lacks if lack.backend != "vulkan"))


def lack_for(backend: Backend, facts: BuildFacts) -> Lack | None:
    """Return what keeps llama.cpp from being built for a backend; None where nothing does.

    Whether the machine has a GPU for it does not matter: a container is often built elsewhere than it runs.
    """
    why, way_out = _LACKS[backend](facts)
    if not why:
        return None
    if way_out:
        return Lack(backend, why, way_out=way_out)
    packages = _PACKAGES.get(backend, {}).get(facts.package_manager, "")
    return Lack(backend, why, packages, "" if packages else f"Install it: {_SOURCES[backend]}")


# Each returns what is missing, and what to do where no package installs it; "" and "" where nothing is missing.


def _cuda_lack(facts: BuildFacts) -> tuple[str, str]:
    if not facts.nvcc:
        return "CUDA's compiler, nvcc, is not found.", ""
    if not facts.has_cublas:
        return f"CUDA's toolkit is incomplete: {facts.nvcc} finds no cuBLAS (cublas_v2.h).", ""
    oldest = MIN_DRIVER.get(facts.cuda[0]) if facts.cuda else None
    if oldest is not None and facts.nvidia_driver and facts.nvidia_driver[0] < oldest:
        toolkit, driver = _version(facts.cuda), _version(facts.nvidia_driver)
        return (
            f"CUDA {toolkit} needs NVIDIA's driver {oldest} or newer, and {driver} is loaded.",
            "Update the driver, or install an older toolkit.",
        )
    return "", ""


def _hip_lack(facts: BuildFacts) -> tuple[str, str]:
    if not facts.hip:
        return "ROCm's compiler, hipcc, is not found.", ""
    if facts.hip < MIN_HIP:
        needed, found = _version(MIN_HIP), _version(facts.hip)
        return f"llama.cpp needs ROCm {needed} or newer, and {found} is installed.", f"Install it: {_SOURCES['hip']}"
    if not facts.has_hipblas:
        return "ROCm is incomplete: the headers of hipBLAS or rocBLAS are not found.", ""
    return "", ""


def _vulkan_lack(facts: BuildFacts) -> tuple[str, str]:
    if 0 < facts.vulkan_header < MIN_VULKAN_HEADER:
        return (
            f"Vulkan's headers are too old: version {facts.vulkan_header}, and llama.cpp needs {MIN_VULKAN_HEADER}.",
            f"Install the Vulkan SDK and set VULKAN_SDK: {_SOURCES['vulkan']}",
        )
    missing = [
        what
        for what, is_there in (
            ("its shader compiler (glslc)", facts.has_glslc),
            ("its headers", facts.vulkan_header > 0),
            ("SPIR-V's headers", facts.has_spirv_headers),
        )
        if not is_there
    ]
    return (f"Vulkan lacks {', '.join(missing)}.", "") if missing else ("", "")


def _metal_lack(facts: BuildFacts) -> tuple[str, str]:
    if facts.system != "Darwin":
        return "Metal is Apple's, and this is not macOS.", "Choose another backend."
    if not facts.has_metal_compiler:
        return "Xcode's command line tools are not installed.", "Install them: xcode-select --install"
    return "", ""


def _sycl_lack(facts: BuildFacts) -> tuple[str, str]:
    if not facts.has_icpx:
        return (
            "oneAPI's compiler, icpx, is not on the path.",
            f"Install oneAPI ({_SOURCES['sycl']}), and set its environment: . /opt/intel/oneapi/setvars.sh",
        )
    return "", ""


_LACKS: Final[Mapping[Backend, Callable[[BuildFacts], tuple[str, str]]]] = {
    "cuda": _cuda_lack,
    "hip": _hip_lack,
    "vulkan": _vulkan_lack,
    "metal": _metal_lack,
    "sycl": _sycl_lack,
    "cpu": lambda _: ("", ""),
}


def cmake_args(backend: Backend, facts: BuildFacts) -> str:
    """Return CMAKE_ARGS that build llama.cpp for a backend; "" where llama.cpp's own defaults do."""
    if backend == "cpu":
        return "-DGGML_METAL=OFF" if facts.system == "Darwin" else ""
    if backend == "metal":
        return ""
    options = [_OPTIONS[backend]]
    options += [_NATIVE_BY_FLAG, _NO_FEATURE_BY_NAME] if facts.machine in _X86 else [_LOADED_AT_RUN_TIME]
    if backend == "cuda" and not facts.is_nvcc_found:
        options.append(f"-DCMAKE_CUDA_COMPILER={facts.nvcc}")
    if backend == "cuda" and "NVIDIA" in facts.gpus:
        # Only this machine's GPUs: code for all kinds of GPU takes several times as long to compile.
        options.append("-DCMAKE_CUDA_ARCHITECTURES=native")
    if backend == "hip" and facts.hip_clang:
        options.append(f"-DCMAKE_HIP_COMPILER={facts.hip_clang}")
    return " ".join(options)


def serves(backend: Backend, maker: Maker) -> bool:
    """Whether a backend computes on a maker's GPUs."""
    return backend in _PREFERRED[maker] or (backend, maker) == ("sycl", "Intel")


def compiler_flags(arguments: str) -> str:
    """Return what CFLAGS and CXXFLAGS need for the CPU's own part of a build; "" where llama.cpp finds it out.

    Args:
        arguments: what ``cmake_args`` returned, now or for an earlier build.
    """
    return "-march=native" if _NATIVE_BY_FLAG in arguments else ""


def _version(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
