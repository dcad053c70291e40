"""Parses how many layers of a model each accelerator computes."""

from __future__ import annotations

import re
from typing import Any, Final

DEVICE_LAYERS_WORDING: Final = 'a number of layers for device 0, or a list such as ["0:20", "1:12"], each device once'

# Limits of llama.cpp. Source: llama.cpp, GGML_SCHED_MAX_BACKENDS, LLAMA_MAX_LAYERS.
MAX_DEVICES: Final = 16
MAX_LAYERS: Final = 512

_ENTRY: Final = re.compile(r"\s*(\d{1,3})\s*:\s*(\d{1,3})\s*")


def read_device_layers(value: Any) -> tuple[int, ...] | None:
    """Return the layers by number of the device: ``["0:20", "2:5"]`` is (20, 0, 5), and a bare 20 is (20,).

    Raises:
        ValueError: it is neither a number of layers nor such a list.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return (_checked(value),)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(DEVICE_LAYERS_WORDING)
    layers: dict[int, int] = {}
    for entry in value:
        match = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
        if match is None or int(match[1]) >= MAX_DEVICES or int(match[1]) in layers:
            raise ValueError(DEVICE_LAYERS_WORDING)
        layers[int(match[1])] = _checked(int(match[2]))
    return tuple(layers.get(device, 0) for device in range(max(layers) + 1))


def _checked(layers: int) -> int:
    if not 0 <= layers <= MAX_LAYERS:
        raise ValueError(DEVICE_LAYERS_WORDING)
    return layers
