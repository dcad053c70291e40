"""A placement on the devices that exist: which ones it means, and llama.cpp's parameters for it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from modelyard.engine.llama.backends import backends, missing_backends
from modelyard.engine.llama.devices import (
    LlamaDevice,
    accelerators,
    buffer_name,
    buffer_type,
    device_pointer,
    devices,
)
from modelyard.engine.llama.library import lib
from modelyard.engine.llama.log_lines import buffers_of
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import HOST_NAME, ON_HOST, DeviceBytes, Placement, SplitMode
from modelyard.system.llama_builds import GGML_NAMES

_SPLIT_MODES: Final[Mapping[SplitMode, int]] = {
    "none": lib.LLAMA_SPLIT_MODE_NONE,
    "layer": lib.LLAMA_SPLIT_MODE_LAYER,
    "row": lib.LLAMA_SPLIT_MODE_ROW,
}

# Tensors of experts. Source: llama.cpp, common/common.h, LLM_FFN_EXPS_REGEX.
EXPERTS: Final = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


class _Override(ctypes.Structure):
    """Source: llama.h, struct llama_model_tensor_buft_override."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


def resolve(placement: Placement, found: Sequence[LlamaDevice] | None = None) -> Placement:
    """Return the placement with the names of the devices that it means, as llama.cpp spells them.

    Args:
        placement: as it is configured.
        found: all devices; None: those of this process.

    Raises:
        UnusableModel: it needs a device that does not exist; the message lists those that do.
    """
    if not placement.uses_devices:
        return placement
    existing = accelerators(devices(with_memory=False) if found is None else found)
    known = {device.name.lower(): device.name for device in existing}
    if placement.devices is None:
        names = tuple(device.name for device in existing)
    else:
        # A device that llama.cpp would not choose by itself, such as an integrated one, may be named.
        every = {each.name.lower(): each.name for each in (found or devices(with_memory=False)) if each.kind != "cpu"}
        names = tuple(_named(name, "devices", every) for name in placement.devices)
    overrides = tuple(
        (pattern, place if place == HOST_NAME else _named(place, "tensor_overrides", known | dict(_pairs(names))))
        for pattern, place in placement.tensor_overrides
    )
    if not names and placement.gpu_layers:
        raise UnusableModel(
            f"device_layers or n_gpu_layers gives {placement.gpu_layers} layers to accelerators. {_why_none()}"
        )
    given = [number for number, part in enumerate(placement.split) if part]
    if given and given[-1] >= len(names):
        raise UnusableModel(
            f"device_layers or tensor_split gives layers to device {given[-1]}, but there are {len(names)}: "
            f"{_listed(names)}."
        )
    if names and placement.main_device >= len(names):
        raise UnusableModel(
            f"main_gpu is {placement.main_device}, but there are {len(names)} devices: {_listed(names)}."
        )
    if placement.gpu_layers == 0 and not any(place != HOST_NAME for _, place in overrides):
        names = ()
    if not names:
        return replace(ON_HOST, mlock=placement.mlock, mmap=placement.mmap)
    return replace(placement, devices=names, tensor_overrides=overrides, split=placement.split[: len(names)])


def _why_none() -> str:
    """Return why there are no accelerators, and what to do."""
    if missing := missing_backends():
        return str(missing[0])
    if set(backends()) & GGML_NAMES.keys():
        return "llama.cpp was built for some, but sees none: check their driver, which `modelyard doctor` names."
    return (
        "The installed llama.cpp was built for the CPU alone. Leave them out, or install llama-cpp-python for your "
        "accelerator: `modelyard doctor` shows how."
    )


def _pairs(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    return ((name.lower(), name) for name in names)


def _named(name: str, key: str, known: Mapping[str, str]) -> str:
    if name.lower() not in known:
        raise UnusableModel(
            f"{key} names the device '{name}', which does not exist. There are: {_listed(known.values())}."
        )
    return known[name.lower()]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{number} ({name})" for number, name in enumerate(names)) or "none"


def divided_by_free_memory(placement: Placement, found: Sequence[LlamaDevice]) -> Placement:
    """Return the placement with the parts that llama.cpp would give its devices now, if it has none.

    Only such a placement takes the same memory each time: without parts, a load depends on what is free.

    Args:
        placement: with names of devices, as ``resolve`` returns it.
        found: devices with their free memory.

    Source: llama.cpp, src/llama-model.cpp, load_tensors, "default split, by free memory".
    """
    names = placement.devices or ()
    if len(names) < 2 or any(placement.split) or placement.split_mode == "none":
        return placement
    free = {device.name: device.free_bytes >> 20 for device in found}
    return replace(placement, split=tuple(float(free.get(name, 0)) for name in names))


def host_experts(layers: int) -> str:
    """Return a regular expression for the tensors of the experts of the first ``layers`` layers."""
    return rf"blk\.({'|'.join(map(str, range(layers)))}){EXPERTS}"


def overrides_of(placement: Placement) -> tuple[tuple[str, str], ...]:
    """Return the pairs of pattern and place, the first of which that matches counts."""
    experts = ((host_experts(placement.cpu_moe_layers), HOST_NAME),) if placement.cpu_moe_layers else ()
    return (*placement.tensor_overrides, *experts)


def set_placement(params: Any, placement: Placement) -> list[Any]:
    """Set the placement in llama.cpp's parameters of a model.

    Args:
        params: a ``llama_model_params``.
        placement: with names of devices, as ``resolve`` returns it.

    Returns the memory that the parameters point to; it must be kept until the model is loaded.

    Raises:
        KeyError: a device does not exist.
    """
    names = placement.devices or ()
    # Always a list, even if it is empty: with no list llama.cpp would use all devices, also for a model whose layers
    # are all on the host.
    pointers = (ctypes.c_void_p * (len(names) + 1))(*map(device_pointer, names), None)
    params.devices = ctypes.addressof(pointers)
    params.n_gpu_layers = 0 if not names else -1 if placement.gpu_layers is None else placement.gpu_layers
    params.split_mode = _SPLIT_MODES[placement.split_mode]
    params.main_gpu = placement.main_device
    params.load_mode = _load_mode(placement)
    kept: list[Any] = [pointers]
    if placement.split:
        # llama.cpp reads as many numbers as it can have devices.
        parts = (ctypes.c_float * int(lib.llama_max_devices()))(*placement.split)
        params.tensor_split = parts
        kept.append(parts)
    overrides = overrides_of(placement) if names else ()
    if overrides:
        array = (_Override * (len(overrides) + 1))(
            *(
                _Override(pattern.encode(), buffer_type(None if place == HOST_NAME else place))
                for pattern, place in overrides
            )
        )
        params.tensor_buft_overrides = ctypes.addressof(array)
        kept.append(array)
    return kept


def _load_mode(placement: Placement) -> int:
    if placement.mlock:
        return int(lib.LLAMA_LOAD_MODE_MMAP_MLOCK)
    if placement.mmap is None:
        return int(lib.LLAMA_LOAD_MODE_AUTO)
    return int(lib.LLAMA_LOAD_MODE_MMAP if placement.mmap else lib.LLAMA_LOAD_MODE_NONE)


def allocated_by_device(lines: Iterable[str], placement: Placement) -> dict[str, DeviceBytes]:
    """Return what llama.cpp allocated on each device of the placement and on the host, by lines of its log."""
    return buffers_of(lines, {buffer_name(name): name for name in placement.devices or ()})
