"""Another program that takes memory of a device: ``python device_memory_program.py NAME BYTES``.

It prints "taken", or "refused", and holds the memory until the end of its input.
"""

import ctypes
import sys

from modelyard.engine.llama.devices import buffer_type
from modelyard.engine.llama.library import registered

if __name__ == "__main__":
    name, size = sys.argv[1], int(sys.argv[2])
    allocate = registered().ggml_backend_buft_alloc_buffer
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    print("taken" if allocate(buffer_type(name), size) else "refused", flush=True)
    sys.stdin.read()
