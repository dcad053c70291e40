"""Finds weights that are NaN or infinite in a GGUF file on disk.

llama.cpp's own ``check_tensors`` does the same during a load, with a thread for each tensor: large models have more
tensors than a container may start threads.

Source: ggml.h, ggml_validate_row_data; gguf.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.engine.llama.library import ggml, start
from modelyard.errors import UnusableModel


class _InitParams(ctypes.Structure):
    """struct gguf_init_params"""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor: its type, as in enum ggml_type, and the place of its bytes in the file."""

    name: str
    type: int
    begin: int
    size: int


def find_broken_tensor(path: Path, threads: int) -> str | None:
    """Return the name of a tensor with NaN or infinity, also as the scale of a block; None: there is none.

    Raises:
        UnusableModel: ggml cannot read the file.
    """
    start()
    stored = list(_tensors(path))
    if not stored:
        return None
    contents = np.memmap(path, np.uint8, "r")
    with ThreadPoolExecutor(threads) as pool:
        are_valid = pool.map(lambda tensor: _is_valid(contents, tensor), stored)
        return next((tensor.name for tensor, is_valid in zip(stored, are_valid, strict=True) if not is_valid), None)


def _is_valid(contents: npt.NDArray[np.uint8], tensor: _Stored) -> bool:
    data = contents[tensor.begin : tensor.begin + tensor.size]
    return bool(_library().ggml_validate_row_data(tensor.type, data.ctypes.data, len(data)))


def _tensors(path: Path) -> Iterator[_Stored]:
    library = _library()
    pointer = library.gguf_init_from_file(bytes(path), _InitParams(no_alloc=True, ctx=None))
    if not pointer:
        raise UnusableModel(f"ggml cannot read {path.name}. It is damaged: download it again.")
    try:
        begin = library.gguf_get_data_offset(pointer)
        for index in range(library.gguf_get_n_tensors(pointer)):
            yield _Stored(
                library.gguf_get_tensor_name(pointer, index).decode("utf-8", "replace"),
                library.gguf_get_tensor_type(pointer, index),
                begin + library.gguf_get_tensor_offset(pointer, index),
                library.gguf_get_tensor_size(pointer, index),
            )
    finally:
        library.gguf_free(pointer)


@cache
def _library() -> Any:
    """ggml, with the types of the functions that are called here."""
    index, pointer, size = ctypes.c_int64, ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in (
        ("ggml_validate_row_data", ctypes.c_bool, (ctypes.c_int, ctypes.c_void_p, size)),
        ("gguf_init_from_file", pointer, (ctypes.c_char_p, _InitParams)),
        ("gguf_free", None, (pointer,)),
        ("gguf_get_data_offset", size, (pointer,)),
        ("gguf_get_n_tensors", index, (pointer,)),
        ("gguf_get_tensor_name", ctypes.c_char_p, (pointer, index)),
        ("gguf_get_tensor_type", ctypes.c_int, (pointer, index)),
        ("gguf_get_tensor_offset", size, (pointer, index)),
        ("gguf_get_tensor_size", size, (pointer, index)),
    ):
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, arguments
    return ggml
