"""The one import of llama-cpp-python: its low-level modules alone.

The package's own ``__init__`` imports its high-level interface, and with that a cache that unpickles what it finds on
disk (diskcache), a template engine and more that nothing here uses.

Importing this module raises ``LlamaCppUnusable`` where llama.cpp cannot be loaded.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from modelyard.errors import LlamaCppUnusable
from modelyard.system.bare_package import enter_bare

try:
    enter_bare("llama_cpp")
    # After it, or their package would be imported in full.
    import llama_cpp.llama_cpp as lib
    import llama_cpp.mtmd_cpp as mtmd
    from llama_cpp._ggml import libggml as ggml
except (ImportError, OSError, RuntimeError) as error:
    raise LlamaCppUnusable(str(error)) from error

__all__ = ["LIBRARIES", "ggml", "lib", "load_backends", "mtmd"]

# The folder of llama.cpp's libraries. lib._lib is what llama-cpp-python loaded with ctypes.
LIBRARIES = Path(lib._lib._name).parent

# Source: ggml.h, ggml_log_callback.
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_drop_line = _LOG_CALLBACK(lambda _level, _text, _user_data: None)


def load_backends(library: Any, folder: Path) -> None:
    """Load the backends of a llama.cpp that has them as libraries of their own (GGML_BACKEND_DL); others have them.

    This also initialises the drivers of devices, which then cannot be used in forks of this process; so it is done when
    devices or weights are first used, and not at the import. Afterwards llama.cpp logs to standard error.

    A backend whose own libraries are missing, such as CUDA's without a driver, is left out. llama.cpp itself would look
    for backends beside Python's executable and in the current folder, which may be a stranger's.

    Args:
        library: llama.cpp, as ctypes loads it.
        folder: of its libraries.

    Raises:
        LlamaCppUnusable: there is none that can be loaded.

    Source: ggml-backend-reg.cpp, ggml_backend_load_all_from_path.
    """
    count, load = library["ggml_backend_reg_count"], library["ggml_backend_load_all_from_path"]
    count.restype, load.restype, load.argtypes = ctypes.c_size_t, None, [ctypes.c_char_p]
    log_to = library["ggml_log_set"]
    log_to.restype, log_to.argtypes = None, [_LOG_CALLBACK, ctypes.c_void_p]
    # Backends log their devices when they are first asked for, by default to standard error.
    log_to(_drop_line, None)
    try:
        if count() == 0:
            load(os.fsencode(folder))
        if count() == 0:
            raise LlamaCppUnusable(f"no backend in {folder} can be loaded, not even the CPU's")
    finally:
        log_to(_LOG_CALLBACK(), None)
