"""Encodes engines' messages and events as bytes, for processes that run the same version of this program.

The encoding is pickle, restricted to the classes of the protocol: a process that a broken model file has compromised
must not be able to call functions in the server's process. Large arrays, images and clips of sound are not part of the
bytes; they are sent beside them as shared memory.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import fields
from functools import cache, partial
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final

import numpy as np

from modelyard.protocol.prompts import Audio, Image
from modelyard.system.shared_memory import SharedArray, SharedMemory

# Copying a smaller array is faster than making a block.
MIN_SHARED_BYTES: Final = 64 << 10

_MODULES: Final = frozenset(
    f"modelyard.{name}"
    for name in (
        "engine.hosts.protocol",
        "engine.settings",
        "errors",
        "protocol.adapters",
        "protocol.events",
        "protocol.forwarding",
        "protocol.kv_snapshot",
        "protocol.messages",
        "protocol.model_info",
        "protocol.placement",
        "protocol.prompts",
        "protocol.requests",
        "protocol.suspended",
        "protocol.values",
        "system.file_stamp",
    )
)
_FUNCTIONS: Final = frozenset(
    {
        ("modelyard.errors", "restore_error"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.core.numeric", "_frombuffer"),
    }
)
_CLASSES: Final = frozenset(
    {
        ("builtins", "bool"),
        ("builtins", "bytearray"),
        ("builtins", "float"),
        ("builtins", "int"),
        ("builtins", "frozenset"),
        ("builtins", "set"),
        ("numpy", "dtype"),
        ("pathlib", "Path"),
        ("pathlib", "PosixPath"),
        ("pathlib", "WindowsPath"),
    }
)


# The field of a medium that is sent as shared memory.
_CONTENT: Final[dict[type, str]] = {Image: "pixels", Audio: "samples"}


class ForeignValue(Exception):
    """A value is not part of the protocol."""


def encode(value: object) -> tuple[bytes, list[SharedMemory]]:
    """Return the bytes of ``value``, and the blocks of shared memory that belong to them, in order.

    Raises:
        ForeignValue: it contains a value that is not of the protocol, or is nested too deeply.
        OSError: there is no memory for a block.
    """
    output = io.BytesIO()
    pickler = _Pickler(output)
    try:
        pickler.dump(value)
    except (pickle.PicklingError, TypeError, AttributeError) as foreign:
        raise ForeignValue(f"it contains a value that cannot be encoded: {foreign}") from foreign
    except RecursionError as nested:
        raise ForeignValue("it is nested too deeply") from nested
    return output.getvalue(), pickler.blocks


def decode(data: bytes | bytearray, blocks: Sequence[SharedMemory]) -> Any:
    """Return the value that ``encode`` was called with. Large arrays stay in ``blocks``.

    Raises:
        ForeignValue: it contains a value that is not of the protocol.
    """
    return _Unpickler(io.BytesIO(data), blocks).load()


class _Pickler(pickle.Pickler):
    def __init__(self, output: io.BytesIO) -> None:
        super().__init__(output, protocol=5)
        self.blocks: list[SharedMemory] = []

    def reducer_override(self, value: Any) -> Any:
        """Reduce large arrays to the indexes of their blocks, and refuse classes that the decoder would refuse."""
        if isinstance(value, np.generic):
            plain = value.item()
            return type(plain), (plain,)
        if not isinstance(value, np.ndarray):
            kind = value if isinstance(value, type) else type(value)
            # Functions occur only in the reductions of values that are checked themselves, and the dtypes' many classes
            # are decoded by the name numpy.dtype.
            if not isinstance(value, FunctionType | BuiltinFunctionType | np.dtype):
                _find_class(kind.__module__, kind.__qualname__)
            if isinstance(value, Image | Audio) and len(media_bytes := _bytes_of(value)) >= MIN_SHARED_BYTES:
                return self._reduce_medium(value, media_bytes)
            return NotImplemented
        if value.nbytes < MIN_SHARED_BYTES and type(value) is np.ndarray:
            return NotImplemented
        if isinstance(value, SharedArray) and value.memory is not None:
            block = value.memory
        elif value.nbytes < MIN_SHARED_BYTES:
            return np.array(value).__reduce_ex__(5)
        else:
            block = SharedMemory.copy_of(np.ascontiguousarray(value))
        self.blocks.append(block)
        return _shared_array, (len(self.blocks) - 1, value.dtype.str, value.shape)

    def _reduce_medium(self, value: Image | Audio, content: bytes) -> Any:
        # Pickling would copy the bytes twice while the GIL is held, which takes 10 ms for an image.
        self.blocks.append(SharedMemory.copy_of(np.frombuffer(content, np.uint8)))
        others = {each.name: getattr(value, each.name) for each in fields(value) if each.name != _CONTENT[type(value)]}
        return _shared_medium, (type(value), len(self.blocks) - 1, others)


class _Unpickler(pickle.Unpickler):
    def __init__(self, source: io.BytesIO, blocks: Sequence[SharedMemory]) -> None:
        super().__init__(source)
        # Partial functions, not bound methods: the garbage collector cannot free an unpickler that refers to itself.
        self._shared = {
            function.__name__: partial(function, blocks=blocks) for function in (_shared_array, _shared_medium)
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function of this name, if it is part of the protocol."""
        if module == __name__ and name in self._shared:
            return self._shared[name]
        return super().find_class(module, name) if (module, name) in _FUNCTIONS else _find_class(module, name)


@cache
def _find_class(module: str, name: str) -> type:
    """Return a class of the protocol by its name.

    Raises:
        ForeignValue: the protocol has no such class.
    """
    is_known = module in _MODULES or (module, name) in _CLASSES
    found = getattr(import_module(module), name, None) if is_known else None
    # Names that a module of the protocol imports do not belong to the protocol.
    if not isinstance(found, type) or (module in _MODULES and found.__module__ != module):
        raise ForeignValue(f"{module}.{name} is not part of the protocol")
    return found


def _shared_array(
    block: int, dtype: str, shape: tuple[int, ...], *, blocks: Sequence[SharedMemory] = ()
) -> SharedArray:
    """Return the array on ``blocks[block]``. The decoder supplies ``blocks``; the pickle has the other arguments."""
    if not 0 <= block < len(blocks):
        raise ForeignValue(f"There is no block {block}")
    return SharedArray.on(blocks[block], dtype, shape)


def _bytes_of(medium: Image | Audio) -> bytes:
    return medium.pixels if isinstance(medium, Image) else medium.samples


def _shared_medium(
    kind: type, block: int, others: dict[str, Any], *, blocks: Sequence[SharedMemory] = ()
) -> Image | Audio:
    """Return the image or clip whose bytes are on ``blocks[block]``, without computing its digest again."""
    if kind not in _CONTENT or not 0 <= block < len(blocks):
        raise ForeignValue(f"There is no block {block} for a value of {kind.__name__}")
    medium: Image | Audio = object.__new__(kind)
    for name, value in {**others, _CONTENT[kind]: blocks[block].read()}.items():
        object.__setattr__(medium, name, value)
    return medium
