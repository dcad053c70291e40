"""The devices of a machine, and which of them a placement means. Pure: llama.cpp itself is not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from modelyard.errors import UnusableModel
from modelyard.protocol.placement import HOST_NAME, ON_HOST, Placement

DeviceKind: TypeAlias = Literal["cpu", "gpu", "igpu", "accel"]

# The name of llama.cpp's backend for devices of other processes. Source: ggml-rpc.cpp, ggml_backend_rpc_reg_get_name.
REMOTE: Final = "RPC"

BACKEND_VARIABLE: Final = "GGML_BACKEND_PATH"
"""The environment variable with the library of a further backend of llama.cpp."""

# Tensors of experts. Source: llama.cpp, common/common.h, LLM_FFN_EXPS_REGEX.
_EXPERTS: Final = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


@dataclass(frozen=True, slots=True)
class LlamaDevice:
    """A device of llama.cpp. An accelerator is a "gpu", or an "igpu" where it shares the machine's memory.

    Attributes:
        name: unique, and the same at each start on the same machine: "CUDA0", "Vulkan1", "RPC0", "CPU".
        description: such as the name of the product.
        kind: of the device.
        free_bytes, total_bytes: its memory; 0 where they were not asked for, or the device does not tell.
        backend: name of the library that drives it: "CUDA", "RPC".
        hardware_id: such as the address on the PCI bus; "" where it is unknown. Two backends may drive one device.
    """

    name: str
    description: str
    kind: DeviceKind
    free_bytes: int
    total_bytes: int
    backend: str = ""
    hardware_id: str = ""


def accelerators(found: Sequence[LlamaDevice]) -> tuple[LlamaDevice, ...]:
    """Return the devices that layers can be given to, in the order that llama.cpp gives them layers.

    Those of other processes come first. Of a device that two backends drive, the first one counts. Integrated devices
    count only where there are no others in this machine.

    Source: llama.cpp, src/llama.cpp, llama_prepare_model_devices.
    """
    remote = [device for device in found if device.kind == "gpu" and device.backend == REMOTE]
    own: list[LlamaDevice] = []
    for device in found:
        known = {other.hardware_id for other in own}
        if device.kind == "gpu" and device.backend != REMOTE and (device.hardware_id or None) not in known:
            own.append(device)
    integrated = [device for device in found if device.kind == "igpu"]
    first = [device for device in integrated if device.backend == integrated[0].backend]
    return (*remote, *(own or first))


def resolve(placement: Placement, found: Sequence[LlamaDevice], why_none: Callable[[], str] = lambda: "") -> Placement:
    """Return the placement with the names of the devices that it means, as llama.cpp spells them.

    Args:
        placement: as it is configured.
        found: all devices of the machine.
        why_none: returns why there are no accelerators, and what to do, for the message of an error.

    Raises:
        UnusableModel: it needs a device that does not exist; the message lists those that do.
    """
    if not placement.uses_devices:
        return placement
    existing = accelerators(found)
    known = {device.name.lower(): device.name for device in existing}
    if placement.devices is None:
        names = tuple(device.name for device in existing)
    else:
        # A device that llama.cpp would not choose by itself, such as an integrated one, may be named.
        every = {each.name.lower(): each.name for each in found if each.kind != "cpu"}
        names = tuple(_named(name, "devices", every) for name in placement.devices)
    known |= {name.lower(): name for name in names}
    overrides = tuple(
        (pattern, place if place == HOST_NAME else _named(place, "tensor_overrides", known))
        for pattern, place in placement.tensor_overrides
    )
    if not names and placement.gpu_layers:
        raise UnusableModel(
            f"device_layers or n_gpu_layers gives {placement.gpu_layers} layers to accelerators. {why_none()}"
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
    return rf"blk\.({'|'.join(map(str, range(layers)))}){_EXPERTS}"


def overrides_of(placement: Placement) -> tuple[tuple[str, str], ...]:
    """Return the pairs of pattern and place, the first of which that matches counts."""
    experts = ((host_experts(placement.cpu_moe_layers), HOST_NAME),) if placement.cpu_moe_layers else ()
    return (*placement.tensor_overrides, *experts)
