"""The devices that llama.cpp sees, and the processor's features that it uses."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Final

from modelyard.engine.llama.library import lib, registered, start
from modelyard.engine.placing import DeviceKind, LlamaDevice

# By number. Source: ggml-backend.h, enum ggml_backend_dev_type.
_KINDS: Final[tuple[DeviceKind, ...]] = ("cpu", "gpu", "igpu", "accel")


class _Properties(ctypes.Structure):
    """Source: ggml-backend.h, struct ggml_backend_dev_props, without its last member but with room for it."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_byte * 64),
    ]


@cache
def _registry() -> Any:
    """Start llama.cpp, and return ggml's functions on devices, which llama-cpp-python does not declare."""
    start()
    ggml = registered()
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for text in (ggml.ggml_backend_dev_name, ggml.ggml_backend_dev_description, ggml.ggml_backend_reg_name):
        text.restype, text.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    ggml.ggml_backend_buft_name.restype, ggml.ggml_backend_buft_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    for pointer in (
        ggml.ggml_backend_dev_backend_reg,
        ggml.ggml_backend_dev_buffer_type,
        ggml.ggml_backend_buft_get_device,
    ):
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    ggml.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
    ggml.ggml_backend_buft_is_host.restype, ggml.ggml_backend_buft_is_host.argtypes = ctypes.c_bool, [ctypes.c_void_p]
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    size = ctypes.POINTER(ctypes.c_size_t)
    ggml.ggml_backend_dev_memory.restype, ggml.ggml_backend_dev_memory.argtypes = None, [ctypes.c_void_p, size, size]
    ggml.ggml_backend_dev_get_props.restype = None
    ggml.ggml_backend_dev_get_props.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Properties)]
    return ggml


def devices(*, with_memory: bool = True) -> tuple[LlamaDevice, ...]:
    """Return all devices, in the order of their numbers in ggml.

    Args:
        with_memory: whether to ask them for their memory. Asking makes some drivers (CUDA) take some of it for this
            process. A device of another process (RPC) that is gone ends this process.
    """
    ggml = _registry()
    found = []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        if (kind := _kind(device)) is None:
            continue
        free, total, hardware = ctypes.c_size_t(), ctypes.c_size_t(), b""
        if with_memory:
            ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            properties = _Properties()
            ggml.ggml_backend_dev_get_props(device, ctypes.byref(properties))
            hardware = properties.device_id or b""
        found.append(
            LlamaDevice(
                _text(ggml.ggml_backend_dev_name(device)),
                _text(ggml.ggml_backend_dev_description(device)),
                kind,
                free.value,
                total.value,
                _text(ggml.ggml_backend_reg_name(ggml.ggml_backend_dev_backend_reg(device))),
                _text(hardware),
            )
        )
    return tuple(found)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace").strip()


def device_pointer(name: str) -> int:
    """Return ggml's pointer to a device.

    Raises:
        KeyError: there is no device of that name.
    """
    ggml = _registry()
    for index in range(ggml.ggml_backend_dev_count()):
        device = int(ggml.ggml_backend_dev_get(index))
        if _text(ggml.ggml_backend_dev_name(device)) == name:
            return device
    raise KeyError(name)


def buffer_type(name: str | None) -> int:
    """Return ggml's pointer to the type of buffers of a device; None: of the host.

    Raises:
        KeyError: there is no device of that name.
    """
    ggml = _registry()
    return int(
        ggml.ggml_backend_cpu_buffer_type() if name is None else ggml.ggml_backend_dev_buffer_type(device_pointer(name))
    )


def buffer_name(name: str) -> str:
    """Return the name that llama.cpp's log gives the buffers of a device.

    Raises:
        KeyError: there is no device of that name.
    """
    return _text(_registry().ggml_backend_buft_name(buffer_type(name)))


def device_of_buffers(pointer: int) -> str | None:
    """Return the name of the device whose memory buffers of a type are in; None for the host.

    Args:
        pointer: ggml's pointer to the type. Some devices have a type for memory of the host that they can reach.
    """
    ggml = _registry()
    device = ggml.ggml_backend_buft_get_device(pointer)
    if device is None or ggml.ggml_backend_buft_is_host(pointer):
        return None
    return None if _KINDS[0] == _kind(device) else _text(ggml.ggml_backend_dev_name(device))


def _kind(device: int) -> DeviceKind | None:
    kind = int(_registry().ggml_backend_dev_type(device))
    return _KINDS[kind] if kind < len(_KINDS) else None


def features() -> tuple[str, ...]:
    """Return the features of the processor that llama.cpp was compiled to use, such as "AVX2".

    Source: llama.cpp, llama_print_system_info: "CPU : AVX = 1 | AVX2 = 1 | ".
    """
    start()
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
