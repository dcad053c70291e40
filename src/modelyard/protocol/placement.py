"""Where a model's weights, cache and computation are: the choice, and the bytes that it takes of each device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

SplitMode: TypeAlias = Literal["none", "layer", "row"]

HOST_NAME: Final = "host"
"""The name of the machine's own memory and processor, beside the names of devices."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one model is put. Equal placements of the same file take the same memory.

    Attributes:
        devices: names of the devices, as llama.cpp lists them ("CUDA0"); () for the host alone, None for all
            accelerators.
        gpu_layers: layers on the devices, counted from the last one; the output counts as a layer behind the others.
            The rest is on the host. None: all layers.
        split: parts of the layers on each of ``devices``, in their order; () leaves the division to llama.cpp, which
            takes the free memory of the devices.
        split_mode: "none": ``main_device`` has all; "layer": each device has whole layers; "row": each device has rows
            of every matrix.
        main_device: number, in ``devices``, of the device that has all without a split, or small tensors with rows.
        cpu_moe_layers: number of layers, counted from the first, whose experts stay on the host.
        tensor_overrides: pairs of a regular expression and a place: tensors whose name it matches somewhere are put on
            the host, or on a device. The first match counts, before ``cpu_moe_layers``.
        kv_on_host: whether the KV cache, and attention with it, stays on the host.
        mlock: whether the weights on the host are locked in memory.
        mmap: whether files are mapped; None: where all devices support it.
    """

    devices: tuple[str, ...] | None = None
    gpu_layers: int | None = None
    split: tuple[float, ...] = ()
    split_mode: SplitMode = "layer"
    main_device: int = 0
    cpu_moe_layers: int = 0
    tensor_overrides: tuple[tuple[str, str], ...] = ()
    kv_on_host: bool = False
    mlock: bool = False
    mmap: bool | None = None

    @property
    def uses_devices(self) -> bool:
        """Whether any device but the host may be used."""
        return self.devices is None or bool(self.devices)

    def is_on_devices(self, layers: int) -> bool:
        """Whether devices hold all of a model of ``layers`` layers, of a placement with names of devices that exist."""
        is_whole = self.gpu_layers is None or self.gpu_layers > layers
        stays = self.cpu_moe_layers or self.kv_on_host or any(place == HOST_NAME for _, place in self.tensor_overrides)
        return bool(self.devices) and is_whole and not stays

    @property
    def of_weights(self) -> Placement:
        """What it says of the weights: equal for models that differ only in where their caches are."""
        return replace(self, kv_on_host=False)


ANYWHERE: Final = Placement()
"""The placement of a model that uses all accelerators, if there are any."""

ON_HOST: Final = Placement(devices=())
"""The placement of a model that uses the processor alone."""


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """Bytes that a model takes of the memory of one device, or of the host.

    Attributes:
        weights: tensors of the model.
        kv: KV cache and recurrent states.
        compute: buffer for the results of a step.
        output: buffer that logits are copied to, which is on the host.
    """

    weights: int = 0
    kv: int = 0
    compute: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        """Bytes of all four."""
        return self.weights + self.kv + self.compute + self.output

    def __add__(self, other: DeviceBytes) -> DeviceBytes:
        return DeviceBytes(
            self.weights + other.weights,
            self.kv + other.kv,
            self.compute + other.compute,
            self.output + other.output,
        )


PlacedBytes: TypeAlias = Mapping[str, DeviceBytes]
"""Name of a device, or ``HOST_NAME`` -> the bytes that a model takes of it."""


def added(parts: Iterable[PlacedBytes]) -> dict[str, DeviceBytes]:
    """Return the sums of the parts of a model, by device."""
    sums: dict[str, DeviceBytes] = {}
    for part in parts:
        for name, taken in part.items():
            sums[name] = sums.get(name, DeviceBytes()) + taken
    return sums
