"""A device for tests in a process of its own: ``python rpc_device_program.py LIBRARY PORT BYTES THREADS USED``.

It prints "listening" once clients can connect, and serves until it is killed. The file
USED, of eight bytes, always holds the number of bytes that are allocated.
"""

import ctypes
import sys

if __name__ == "__main__":
    library, port, size, threads, used = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    serve = ctypes.CDLL(library).serve_device
    serve.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p]
    sys.exit(serve(port, size, threads, used.encode()))
