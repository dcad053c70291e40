"""Where llama.cpp has put the tensors of a model in this process's memory.

No function of C lists them. ``llama_internal_get_tensor_map`` returns a ``std::vector`` of pairs of a ``std::string``
and a pointer, which is read here as GNU's C++ library lays it out. That library's strings are part of the function's
name, so that a llama.cpp with others has no function of this name, and no list.

Source: llama.cpp, src/llama-model.h, llama_internal_get_tensor_map; ggml.h; GNU libstdc++, bits/basic_string.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from modelyard.engine.llama.library import lib
from modelyard.system.file_mappings import MappedRange

_SYMBOL: Final = "_Z29llama_internal_get_tensor_mapB5cxx11PK11llama_model"


class _Vector(ctypes.Structure):
    """std::vector: its first element, and the ends of its elements and of its memory."""

    _fields_ = [("begin", ctypes.c_size_t), ("end", ctypes.c_size_t), ("limit", ctypes.c_size_t)]


class _Named(ctypes.Structure):
    """A pair of a std::string, whose last member holds short texts, and a tensor."""

    _fields_ = [
        ("text", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("local", ctypes.c_byte * 16),
        ("tensor", ctypes.c_void_p),
    ]


def can_list_tensors() -> bool:
    """Whether this llama.cpp has a list of tensors that can be read."""
    return hasattr(lib._lib, _SYMBOL)


def tensor_places(model: Any) -> list[MappedRange]:
    """Return the addresses of all tensors of a model, those of devices included, in an order that means nothing.

    A tensor that serves two purposes may be there twice. Addresses on devices may be equal to others of this process.

    Args:
        model: llama.cpp's pointer to it.
    """
    ggml = _ggml()
    return [
        MappedRange(begin, begin + ggml.ggml_nbytes(tensor))
        for tensor in _tensors(model)
        if (begin := ggml.ggml_get_data(tensor))
    ]


def _tensors(model: Any) -> Iterator[int]:
    function = getattr(lib._lib, _SYMBOL)
    function.restype, function.argtypes = ctypes.POINTER(_Vector), [ctypes.c_void_p]
    found = function(model).contents
    for address in range(found.begin, found.end, ctypes.sizeof(_Named)):
        yield _Named.from_address(address).tensor


@cache
def _ggml() -> Any:
    ggml = lib._lib
    ggml.ggml_get_data.restype, ggml.ggml_get_data.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    ggml.ggml_nbytes.restype, ggml.ggml_nbytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    return ggml
