"""Where a model is put, by its configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.config import Config, Model, effective_cpu
from modelyard.engine.placing import REMOTE, LlamaDevice
from modelyard.protocol.placement import HOST_NAME, Placement


def placement_of(config: Config, model: Model) -> Placement:
    """Return where ``[models.device]`` puts a model. Devices that are not named are left open."""
    device = model.device
    if effective_cpu(config.models):
        return Placement(devices=(), mlock=bool(device.mlock), mmap=device.mmap)
    layers = device.device_layers
    return Placement(
        devices=device.devices or None,
        gpu_layers=device.n_gpu_layers if layers is None else sum(layers),
        split=device.tensor_split if layers is None else tuple(map(float, layers)),
        split_mode=device.split_mode or "layer",
        main_device=device.main_gpu or 0,
        cpu_moe_layers=device.n_cpu_moe or 0,
        tensor_overrides=device.tensor_overrides,
        kv_on_host=bool(device.kv_on_host),
        mlock=bool(device.mlock),
        mmap=device.mmap,
    )


def may_use_devices(placement: Placement) -> bool:
    """Whether the placement is another one on a machine with devices than without."""
    return placement.uses_devices and (
        placement.gpu_layers != 0 or any(place != HOST_NAME for _, place in placement.tensor_overrides)
    )


def may_be_remote(placement: Placement, found: Iterable[LlamaDevice]) -> bool:
    """Whether a model may be on devices of other machines: their loss ends the process that uses them."""
    if not may_use_devices(placement):
        return False
    remote = {device.name.lower() for device in found if device.backend == REMOTE and device.kind != "cpu"}
    if placement.devices is None:
        return bool(remote)
    return any(name.lower() in remote for name in placement.devices)


def needs_devices(placement: Placement) -> bool:
    """Whether the placement is impossible on a machine without devices, or with too few of them."""
    return placement.uses_devices and (
        bool(placement.devices)
        or bool(placement.gpu_layers)
        or any(placement.split)
        or placement.main_device > 0
        or any(place != HOST_NAME for _, place in placement.tensor_overrides)
    )
