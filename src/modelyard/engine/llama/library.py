"""llama.cpp in this process: its functions, its log, and what it was built for."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from typing import Any

from modelyard.system.openmp import SPIN_COUNT, SPIN_VARIABLE

# Set before libgomp is loaded, which reads it once.
os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)

from modelyard.engine.placing import BACKEND_VARIABLE
from modelyard.errors import UnusableModel
from modelyard.llama_binding import LIBRARIES, ggml, lib, load_backends, mtmd

__all__ = [
    "BACKEND_VARIABLE",
    "can_offload",
    "ggml",
    "lib",
    "log",
    "mtmd",
    "reason",
    "registered",
    "start",
    "version",
]

# Source: ggml.h, enum ggml_log_level.
_LOG_WARNING = 3
_LOG_ERROR = 4
_LOG_LINES_KEPT = 20


class _Log(threading.local):
    """What llama.cpp logs on this thread and reports in no other way.

    These are errors, the sizes of its buffers, and that memory could not be locked.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.errors: list[str] = []
        self.buffers: list[str] = []
        self.caches: list[str] = []
        self.locks: list[str] = []


log = _Log()


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, _user_data: object) -> None:
    if level == _LOG_ERROR and len(log.errors) < _LOG_LINES_KEPT:
        log.errors.append(text.decode("utf-8", "replace").strip())
    elif b" buffer size =" in text:
        log.buffers.append(text.decode("utf-8", "replace"))
    elif b" cells, " in text:
        log.caches.append(text.decode("utf-8", "replace"))
    elif level == _LOG_WARNING and b"mlock" in text and len(log.locks) < _LOG_LINES_KEPT:
        log.locks.append(text.decode("utf-8", "replace").strip())


def _listen_to_logs() -> None:
    # llama.cpp has one log per process; by default it writes every line to stderr.
    lib.llama_log_set(_listen, ctypes.c_void_p(0))
    # Also sets the log of mtmd, which has one of its own.
    mtmd.mtmd_helper_log_set(_listen, ctypes.c_void_p(0))


_listen_to_logs()

_starting = threading.Lock()


def start() -> None:
    """Initialise llama.cpp, its backends and their devices, once a process. What uses devices or weights calls it.

    Importing this module does not: the drivers of devices (CUDA) cannot be used in a fork of a process that has
    initialised them, and processes of engines are forks of one that has imported everything.
    """
    with _starting:
        _start()


@cache
def _start() -> None:
    load_backends(lib._lib, LIBRARIES)
    _listen_to_logs()
    lib.llama_backend_init()
    # llama.cpp's own variable for a backend that was built apart from it, which its programs load at their start.
    # Source: ggml/src/ggml-backend-reg.cpp, ggml_backend_load_all_from_path.
    if path := os.environ.get(BACKEND_VARIABLE):
        registry = registered()
        registry.ggml_backend_load.restype = ctypes.c_void_p
        registry.ggml_backend_load.argtypes = [ctypes.c_char_p]
        log.clear()
        if not registry.ggml_backend_load(os.fsencode(path)):
            raise UnusableModel(f"{BACKEND_VARIABLE} names {path}, which llama.cpp cannot load: {reason()}")


def registered() -> Any:
    """Return ggml's functions on its registry of devices.

    ``ggml`` is another copy of that library, with another registry, because it is loaded by another path than the one
    that libllama is linked with.
    """
    return lib._lib


def reason() -> str:
    """Return and clear the errors that llama.cpp logged."""
    lines = log.errors
    log.clear()
    return "; ".join(lines) or "llama.cpp gave no reason"


def can_offload() -> bool:
    """Whether the installed llama.cpp can use an accelerator: it sees one, or a backend for remote ones is in it."""
    start()
    return bool(lib.llama_supports_gpu_offload())


def version() -> str:
    """Return the version of the installed llama.cpp."""
    return str(lib.llama_version().decode())
