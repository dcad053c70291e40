"""A placement on the devices of this process: which ones it means, and llama.cpp's parameters for it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any, Final

from modelyard.engine.llama.backends import backends, missing_backends
from modelyard.engine.llama.devices import buffer_name, buffer_type, device_pointer, devices
from modelyard.engine.llama.library import lib, log, reason
from modelyard.engine.llama.log_lines import buffers_of, failed_allocations
from modelyard.engine.placing import REMOTE, LlamaDevice, overrides_of, resolve
from modelyard.errors import OutOfDeviceMemory, UnusableModel
from modelyard.protocol.placement import HOST_NAME, DeviceBytes, Placement, SplitMode
from modelyard.system.llama_builds import GGML_NAMES

_SPLIT_MODES: Final[Mapping[SplitMode, int]] = {
    "none": lib.LLAMA_SPLIT_MODE_NONE,
    "layer": lib.LLAMA_SPLIT_MODE_LAYER,
    "row": lib.LLAMA_SPLIT_MODE_ROW,
}


class _Override(ctypes.Structure):
    """Source: llama.h, struct llama_model_tensor_buft_override."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


def resolve_here(placement: Placement) -> Placement:
    """Return the placement with the names of the devices of this process that it means.

    Raises:
        UnusableModel: it needs a device that does not exist; the message lists those that do.
    """
    if not placement.uses_devices:
        return placement
    return resolve(placement, _listed(), _why_none)


def _listed() -> tuple[LlamaDevice, ...]:
    """Return all devices, with their memory only where it must be asked for to see that two are the same hardware."""
    found = devices(with_memory=False)
    several = {device.backend for device in found if device.kind == "gpu" and device.backend != REMOTE}
    return devices() if len(several) > 1 else found


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


def load_failure(what: str, placement: Placement) -> UnusableModel:
    """Return the error for a call of llama.cpp that failed, with its reason; OutOfDeviceMemory if that is what it says.

    Args:
        what: could not be done.
        placement: of the model.
    """
    failed = failed_allocations(log.errors, _buffers(placement))
    return (OutOfDeviceMemory if failed else UnusableModel)(f"{what}: {reason()}")


def allocated_by_device(lines: Iterable[str], placement: Placement) -> dict[str, DeviceBytes]:
    """Return what llama.cpp allocated on each device of the placement and on the host, by lines of its log."""
    return buffers_of(lines, _buffers(placement))


def _buffers(placement: Placement) -> dict[str, str]:
    return {buffer_name(name): name for name in placement.devices or ()}
