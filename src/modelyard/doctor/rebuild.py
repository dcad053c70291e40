"""The shell command that builds llama.cpp again, for a backend or for the processor. Pure."""

from __future__ import annotations

from modelyard.system.llama_builds import WITHOUT_AMX, Backend, BuildFacts, cmake_args, compiler_flags


def rebuild(backend: Backend, build: BuildFacts, version: str, *, without_amx: bool) -> str:
    """Return pip's command that builds llama-cpp-python for a backend, and for the processor of this machine.

    Args:
        backend: the backend.
        build: what the machine has.
        version: of llama-cpp-python; "" for the newest.
        without_amx: whether kernels for AMX are left out.
    """
    arguments = cmake_args(backend, build)
    flags = f"{compiler_flags(arguments)} {WITHOUT_AMX if without_amx else ''}".strip()
    variables = f'CFLAGS="{flags}" CXXFLAGS="{flags}" ' if flags else ""
    given = arguments or "-DGGML_NATIVE=on"
    pin = f"llama-cpp-python=={version}" if version else "llama-cpp-python"
    return (
        f'{variables}CMAKE_ARGS="{given}" pip install --force-reinstall --no-cache-dir --no-deps '
        f"--no-binary llama-cpp-python {pin}"
    )
