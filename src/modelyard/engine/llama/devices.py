"""The devices that llama.cpp was built for, and the processor's features that it uses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from modelyard.engine.llama.backends import backends, missing_backends
from modelyard.engine.llama.library import lib
from modelyard.errors import UnusableModel
from modelyard.system.llama_builds import GGML_NAMES

DeviceKind = Literal["cpu", "gpu", "igpu", "accel"]

# By number. Source: ggml-backend.h, enum ggml_backend_dev_type.
_KINDS: Final[tuple[DeviceKind, ...]] = ("cpu", "gpu", "igpu", "accel")


@dataclass(frozen=True, slots=True)
class LlamaDevice:
    """A device of llama.cpp. An accelerator is a "gpu", or an "igpu" where it shares the machine's memory."""

    name: str
    description: str
    kind: DeviceKind
    free_bytes: int
    total_bytes: int


def devices() -> tuple[LlamaDevice, ...]:
    """Return all devices, in the order of their numbers in ggml."""
    # llama-cpp-python does not declare ggml's own functions; they are loaded with libllama.
    ggml = lib._lib
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for text in (ggml.ggml_backend_dev_name, ggml.ggml_backend_dev_description):
        text.restype, text.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    size = ctypes.POINTER(ctypes.c_size_t)
    ggml.ggml_backend_dev_memory.restype, ggml.ggml_backend_dev_memory.argtypes = None, [ctypes.c_void_p, size, size]

    found = []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        kind = int(ggml.ggml_backend_dev_type(device))
        if kind >= len(_KINDS):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        name = ggml.ggml_backend_dev_name(device).decode("utf-8", "replace")
        description = ggml.ggml_backend_dev_description(device).decode("utf-8", "replace").strip()
        found.append(LlamaDevice(name, description, _KINDS[kind], free.value, total.value))
    return tuple(found)


def accelerators(found: Sequence[LlamaDevice]) -> tuple[LlamaDevice, ...]:
    """Return the devices that layers can be given to, in the order of ``device_layers``. Untested.

    Integrated ones count only where there are no others. Source: llama.cpp, default device selection in src/llama.cpp.
    """
    own = tuple(device for device in found if device.kind == "gpu")
    return own or tuple(device for device in found if device.kind == "igpu")


def features() -> tuple[str, ...]:
    """Return the features of the processor that llama.cpp was compiled to use, such as "AVX2".

    Source: llama.cpp, llama_print_system_info: "CPU : AVX = 1 | AVX2 = 1 | ".
    """
    return parse_features(lib.llama_print_system_info().decode("utf-8", "replace"))


@cache
def has_amx_kernels() -> bool:
    """Whether the installed llama.cpp was compiled with kernels for AMX.

    They end the process with a segmentation fault on some models, such as one of F16 with steps of 2,048 tokens
    (llama-cpp-python 0.3.36), and on all models where GCC before 12.4 or 13.3 compiled them:
    https://gcc.gnu.org/PR114098. llama.cpp uses them for weights in its extra buffer types alone.
    """
    return "AMX_INT8" in features()


def parse_features(text: str) -> tuple[str, ...]:
    """Return the enabled features in a line of llama.cpp's system information."""
    pairs = (part.rpartition(":")[2].split("=") for part in text.split("|") if "=" in part)
    return tuple(name.strip() for name, value in pairs if value.strip() == "1")


def check_devices(device_layers: Sequence[int]) -> None:
    """Refuse layers for accelerators that do not exist.

    Raises:
        UnusableModel: the message lists the accelerators and what to do.
    """
    if not any(device_layers):
        return
    found = accelerators(devices())
    if len(device_layers) <= len(found):
        return
    missing = missing_backends()
    if missing:
        raise UnusableModel(f"device_layers gives layers to an accelerator. {missing[0]}")
    if not found and not set(backends()) & GGML_NAMES.keys():
        raise UnusableModel(
            f"device_layers gives {sum(device_layers)} layers to an accelerator, but the installed llama.cpp was built "
            "for the CPU alone. Remove device_layers, or install llama-cpp-python for your accelerator: "
            "`modelyard doctor` shows how."
        )
    raise UnusableModel(
        f"device_layers gives layers to device {len(device_layers) - 1}, but llama.cpp sees {len(found)}: "
        f"{', '.join(f'{number} ({device.name})' for number, device in enumerate(found)) or 'none'}."
    )
