"""llama.cpp's own account of a context's memory, which is exact also where nothing was allocated.

llama.cpp logs the size of each buffer, but of a dry load it logs that weights and cache take 0 bytes, because their
buffers are empty. ``llama_get_memory_breakdown`` has the sizes. It returns a ``std::map``, which no function of C
reads: its tree is read here as GNU's C++ library lays it out, so that other systems have no account.

Source: llama.cpp, src/llama-ext.h, llama_memory_breakdown; GNU libstdc++, bits/stl_tree.h, _Rb_tree_node_base.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from modelyard.engine.llama.devices import device_of_buffers
from modelyard.engine.llama.library import lib
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import HOST_NAME, DeviceBytes, added

_SYMBOL: Final = "_Z26llama_get_memory_breakdownPK13llama_context"
_LIBRARY: Final = "libstdc++.so.6"

# Types of buffers in one context: llama.cpp has at most 16 devices, each with a few.
MAX_ENTRIES: Final = 128
MAX_BYTES: Final = 1 << 50


class _Map(ctypes.Structure):
    """std::map: the comparison, which is empty, the header of the tree, and the number of entries."""

    _fields_ = [
        ("comparison", ctypes.c_size_t),
        ("color", ctypes.c_size_t),
        ("root", ctypes.c_void_p),
        ("leftmost", ctypes.c_void_p),
        ("rightmost", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    ]


class _Node(ctypes.Structure):
    """A node of the tree with its pair: the type of buffers, and llama_memory_breakdown_data."""

    _fields_ = [
        ("color", ctypes.c_size_t),
        ("parent", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("buffer_type", ctypes.c_void_p),
        ("model", ctypes.c_size_t),
        ("context", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    ]


def can_break_down() -> bool:
    """Whether the sizes can be read on this system, from this llama.cpp."""
    return sys.platform == "linux" and hasattr(lib._lib, _SYMBOL) and _uses_gnu_library()


def _uses_gnu_library() -> bool:
    return _LIBRARY in Path("/proc/self/maps").read_text("utf-8", "replace")


def memory_breakdown(context: Any) -> dict[str, DeviceBytes]:
    """Return the bytes of weights, cache and compute buffers of a context, by device; "host" for the host.

    Each call leaks a few hundred bytes, which C++ alone could free.

    Args:
        context: llama.cpp's pointer to it.

    Raises:
        UnusableModel: the sizes are not where they are expected: this llama.cpp is another version.
    """
    function = getattr(lib._lib, _SYMBOL)
    function.restype, function.argtypes = _Map, [ctypes.c_void_p]
    found = function(context)
    nodes = list(islice(_nodes(found.root), MAX_ENTRIES + 1))
    sizes = [(node.model, node.context, node.compute) for node in nodes]
    if len(nodes) != found.count or len(nodes) > MAX_ENTRIES or any(max(each) > MAX_BYTES for each in sizes):
        raise UnusableModel("llama.cpp's account of its memory cannot be read: it is not of the version that is known.")
    places = (device_of_buffers(node.buffer_type) or HOST_NAME for node in nodes)
    return added({place: DeviceBytes(*each)} for place, each in zip(places, sizes, strict=True))


def _nodes(address: int | None) -> Iterator[Any]:
    waiting = [address]
    while waiting and len(waiting) <= MAX_ENTRIES:
        if (pointer := waiting.pop()) is not None:
            node = _Node.from_address(pointer)
            yield node
            waiting += [node.left, node.right]
