"""Quantises a GGUF file with llama.cpp's quantiser.

    python -m modelyard.converter.quantize SOURCE.gguf OUT.gguf FILE_TYPE [--imatrix FILE]

It runs in a process of its own, because llama.cpp's quantiser cannot be interrupted, and aborts the process on some
failures.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
from pathlib import Path
from typing import Final

from modelyard.converter.imatrix import read_imatrix
from modelyard.converter.protocol import Refused, run
from modelyard.formats.gguf.read import read_header
from modelyard.llama_binding import LIBRARIES, lib, load_backends
from modelyard.system.reporting_process import report

_MAX_ROWS_BYTES: Final = 256 * 2**20
_TENSOR: Final = re.compile(rb"\[ *(\d+)/ *(\d+)\]")
_FELL_BACK: Final = re.compile(rb"(\d+) of (\d+) tensor\(s\) required fallback")
_LOG_ERROR: Final = 4


def main(arguments: list[str]) -> None:
    """Quantise the file that the command line names.

    Raises:
        Refused: llama.cpp cannot quantise it.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("file_type", type=int)
    parser.add_argument("--imatrix", type=Path)
    options = parser.parse_args(arguments)

    errors: list[str] = []

    @lib.llama_log_callback  # type: ignore[untyped-decorator]
    def on_log(level: int, text: bytes, _user_data: object) -> None:
        if (match := _TENSOR.match(text)) is not None:
            report(step="quantising", fraction=(int(match[1]) - 1) / int(match[2]))
        elif (match := _FELL_BACK.search(text)) is not None:
            report(
                notice=f"{int(match[1])} of {int(match[2])} tensors have rows that do not fit the blocks of this type, "
                "and got the nearest type that does."
            )
        elif level == _LOG_ERROR:
            errors.append(text.decode("utf-8", "replace").strip())

    load_backends(lib._lib, LIBRARIES)
    lib.llama_log_set(on_log, ctypes.c_void_p(0))
    lib.llama_backend_init()
    params = lib.llama_model_quantize_default_params()
    params.ftype = options.file_type
    params.allow_requantize = True
    params.max_buf_size = _MAX_ROWS_BYTES
    importance = None
    if options.imatrix is not None:
        shapes = {tensor.name: tensor.shape for tensor in read_header(options.source).tensors}
        importance = read_imatrix(options.imatrix, shapes)
        params.imatrix = importance.entries
    status = lib.llama_model_quantize(bytes(options.source), bytes(options.out), ctypes.byref(params))
    if status != 0:
        raise Refused(f"llama.cpp cannot quantise {options.source.name}: {'; '.join(errors) or f'status {status}'}")


if __name__ == "__main__":
    sys.exit(run(main))
