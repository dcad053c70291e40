"""The shell command that builds llama.cpp again, for a backend or for the processor. Pure."""

from __future__ import annotations

from typing import Final

from modelyard.system.llama_builds import Backend, BuildFacts, cmake_args, compiler_flags

# Flags of GCC and Clang that leave out llama.cpp's kernels for AMX.
WITHOUT_AMX: Final = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def rebuild(backend: Backend, build: BuildFacts, version: str = "", *, without_amx: bool = False) -> str:
    """Return pip's command that builds llama-cpp-python for a backend, and for the processor of this machine.

    Args:
        backend: the backend.
        build: what the machine has.
        version: of llama-cpp-python; "" for the newest.
        without_amx: whether kernels for AMX are left out.
    """
    arguments = cmake_args(backend, build) or "-DGGML_NATIVE=on"
    flags = f"{compiler_flags(backend, build)} {WITHOUT_AMX if without_amx else ''}".strip()
    variables = f'CFLAGS="{flags}" CXXFLAGS="{flags}" ' if flags else ""
    pin = f"llama-cpp-python=={version}" if version else "llama-cpp-python"
    return (
        f'{variables}CMAKE_ARGS="{arguments}" pip install --force-reinstall --no-cache-dir --no-deps '
        f"--no-binary llama-cpp-python {pin}"
    )
