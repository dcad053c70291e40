"""llama.cpp in this process: its functions, its log, and what it was built for."""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterable

from modelyard.system.openmp import SPIN_COUNT, SPIN_VARIABLE

# Set before libgomp is loaded, which reads it once.
os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)

from modelyard.llama_binding import ggml, lib, mtmd

__all__ = ["buffer_bytes", "can_offload", "ggml", "lib", "log", "mtmd", "reason", "version"]

# Source: ggml.h, enum ggml_log_level.
_LOG_ERROR = 4
_LOG_LINES_KEPT = 20


class _Log(threading.local):
    """What llama.cpp logs on this thread and reports in no other way: errors, and the sizes of its buffers."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.errors: list[str] = []
        self.buffers: list[str] = []


log = _Log()


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, _user_data: object) -> None:
    if level == _LOG_ERROR and len(log.errors) < _LOG_LINES_KEPT:
        log.errors.append(text.decode("utf-8", "replace").strip())
    elif b" buffer size =" in text:
        log.buffers.append(text.decode("utf-8", "replace"))


# llama.cpp has one log per process; by default it writes every line to stderr.
lib.llama_log_set(_listen, ctypes.c_void_p(0))
# Also sets the log of mtmd, which has one of its own.
mtmd.mtmd_helper_log_set(_listen, ctypes.c_void_p(0))
lib.llama_backend_init()


def reason() -> str:
    """Return and clear the errors that llama.cpp logged."""
    lines = log.errors
    log.clear()
    return "; ".join(lines) or "llama.cpp gave no reason"


_BUFFER = re.compile(r"(\w+) buffer size = *([\d.]+) MiB")


def buffer_bytes(lines: Iterable[str], *kinds: str) -> int:
    """Return the bytes of the buffers of ``kinds`` in lines of llama.cpp's log, in sum.

    Kinds are "model", "KV" (in other models "RS" and "state"), "output" and "compute". Summaries, which repeat the same
    bytes, have other names and are not counted.

    Source: llama.cpp, LLAMA_LOG_INFO in src/llama-model.cpp, llama-kv-cache.cpp, llama-memory-recurrent.cpp,
    llama-kv-cache-dsv4.cpp, llama-context.cpp.
    """
    found = (match for line in lines if (match := _BUFFER.search(line)))
    return round(sum(float(match[2]) for match in found if match[1] in kinds) * 2**20)


def can_offload() -> bool:
    """Whether the installed llama.cpp was built for an accelerator. Untested: no such machine is at hand."""
    return bool(lib.llama_supports_gpu_offload())


def version() -> str:
    """Return the version of the installed llama.cpp."""
    return str(lib.llama_version().decode())
