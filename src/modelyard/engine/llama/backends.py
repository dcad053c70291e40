"""The backends that llama.cpp was built with, and those of them that cannot be loaded on this machine."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.engine.llama.library import registered, start
from modelyard.llama_binding import LIBRARIES

# Parts of ggml that are no backends of devices, by the names of their files: libggml-base.so, libggml-cpu-haswell.so.
_NO_DEVICES: Final = ("base", "cpu")
_PREFIX: Final = "libggml-"


@dataclass(frozen=True, slots=True)
class MissingBackend:
    """A backend that llama.cpp was built with and that cannot be loaded, so that the CPU computes in its place.

    Attributes:
        name: as its file is named, such as "cuda".
        reason: why, in the words of the system, such as "libcuda.so.1: cannot open shared object file".
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return (
            f"llama.cpp was built for {self.name}, but that part of it cannot be loaded ({self.reason}), so the CPU "
            "computes. Install the driver and the libraries that it needs, or give this container the GPU."
        )


def backends() -> tuple[str, ...]:
    """Return the names of the backends that are loaded, such as "CUDA" and "CPU", as ggml names them."""
    start()
    ggml = registered()
    ggml.ggml_backend_reg_count.restype = ctypes.c_size_t
    ggml.ggml_backend_reg_get.restype, ggml.ggml_backend_reg_get.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    ggml.ggml_backend_reg_name.restype, ggml.ggml_backend_reg_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    found = (ggml.ggml_backend_reg_get(index) for index in range(ggml.ggml_backend_reg_count()))
    return tuple(ggml.ggml_backend_reg_name(backend).decode("utf-8", "replace") for backend in found)


def missing_backends(libraries: Path = LIBRARIES) -> tuple[MissingBackend, ...]:
    """Return the backends among llama.cpp's libraries that cannot be loaded."""
    missing = []
    for library in sorted(libraries.glob(f"{_PREFIX}*.so")):
        name = library.stem.removeprefix(_PREFIX)
        if name.split("-")[0] in _NO_DEVICES:
            continue
        try:
            # One that is loaded already is not loaded again.
            ctypes.CDLL(str(library))
        except OSError as error:
            missing.append(MissingBackend(name, str(error)))
    return tuple(missing)
