"""The buffers that llama.cpp allocated, read from its log. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from modelyard.protocol.placement import HOST_NAME, DeviceBytes, added

_BUFFER: Final = re.compile(r"(\S+)\s+(?:DSV4 \w+ )?(\w+) buffer size = *([\d.]+) MiB")

_CACHE: Final = re.compile(r"size = *([\d.]+) MiB \( *(\d+) cells")

_MAPPED: Final = "CPU_Mapped"

_NOT_ALLOCATED: Final = re.compile(r"(?:failed|unable) to allocate (\S+) buffer")

# Kind of a buffer in the log -> the attribute of ``DeviceBytes``.
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "model": "weights",
    "KV": "kv",
    "RS": "kv",
    "state": "kv",
    "compute": "compute",
    "output": "output",
}


def buffer_bytes(lines: Iterable[str], *kinds: str) -> int:
    """Return the bytes of the buffers of ``kinds`` in lines of llama.cpp's log, in sum.

    Kinds are "model", "KV" (in other models "RS" and "state"), "output" and "compute". Summaries, which repeat the same
    bytes, have other names and are not counted.

    Source: llama.cpp, LLAMA_LOG_INFO in src/llama-model.cpp, llama-kv-cache.cpp, llama-memory-recurrent.cpp,
    llama-kv-cache-dsv4.cpp, llama-context.cpp.
    """
    found = (match for line in lines if (match := _BUFFER.search(line)))
    return round(sum(float(match[3]) for match in found if match[2] in kinds) * 2**20)


def last_cache(lines: Iterable[str]) -> tuple[int, int]:
    """Return the cells and the bytes of the KV cache that the last of ``lines`` reports; 0 and 0 without any.

    Source: llama.cpp, src/llama-kv-cache.cpp, constructor.
    """
    cells, size_bytes = 0, 0
    for line in lines:
        if match := _CACHE.search(line):
            cells, size_bytes = int(match[2]), round(float(match[1]) * 2**20)
    return cells, size_bytes


def weights_bytes(lines: Iterable[str]) -> tuple[int, int]:
    """Return the bytes of the weights that are computed on in mapped files, and of those that are elsewhere.

    The first are counted from the first to the last of them in each file, whatever lies between.

    Args:
        lines: of llama.cpp's log.

    Source: llama.cpp, ggml/src/ggml-backend.cpp, ggml_backend_cpu_buffer_from_ptr_type.
    """
    sizes = {True: 0.0, False: 0.0}
    for line in lines:
        if (match := _BUFFER.search(line)) and match[2] == "model":
            sizes[match[1] == _MAPPED] += float(match[3])
    return round(sizes[True] * 2**20), round(sizes[False] * 2**20)


def buffers_of(lines: Iterable[str], devices: Mapping[str, str]) -> dict[str, DeviceBytes]:
    """Return the bytes of the buffers in lines of llama.cpp's log, by device; "host" is the machine's own memory.

    Args:
        lines: as for ``buffer_bytes``.
        devices: names of buffers in the log, and of their devices. Some devices have several kinds of buffers, whose
            names begin with that of the device ("MTL0_Mapped"). All others are in the machine's memory: "CPU",
            "CPU_Mapped", "CPU_REPACK", "CUDA_Host".
    """
    found = (match for line in lines if (match := _BUFFER.search(line)) and match[2] in _ATTRIBUTES)
    return added(
        {_device(match[1], devices): DeviceBytes(**{_ATTRIBUTES[match[2]]: round(float(match[3]) * 2**20)})}
        for match in found
    )


def failed_allocations(lines: Iterable[str], devices: Mapping[str, str]) -> list[str]:
    """Return the devices that did not have the memory for a buffer, by llama.cpp's errors; host memory is no device's.

    Args:
        lines: errors in llama.cpp's log.
        devices: as for ``buffers_of``.

    Source: llama.cpp, ggml/src/ggml-alloc.c, alloc_tensor_range and ggml_gallocr_reserve_n_impl; src/llama-model.cpp,
    "unable to allocate".
    """
    names = [_device(match[1], devices) for line in lines if (match := _NOT_ALLOCATED.search(line))]
    return [name for name in dict.fromkeys(names) if name != HOST_NAME]


def _device(buffer: str, devices: Mapping[str, str]) -> str:
    if buffer in devices:
        return devices[buffer]
    return next((name for name in devices.values() if buffer.startswith(f"{name}_")), HOST_NAME)
