"""Predicts what a model takes in each placement that it may have, and how fast it computes there. Pure.

The host part is what ``footprint`` predicts for a model on the host, less what is on devices; the device parts are the
buffers that llama.cpp allocates there (``placed_footprint``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelyard.engine.placing import LlamaDevice
from modelyard.protocol.placement import HOST_NAME, DeviceBytes, PlacedBytes, Placement
from modelyard.yard.memory.device_pools import pool_of, speed_of
from modelyard.yard.memory.footprint import Choices, DeviceShare, Footprint
from modelyard.yard.memory.layer_placement import LayerPlacement
from modelyard.yard.memory.placed_footprint import PlacedModel
from modelyard.yard.memory.prediction import ContextBytes
from modelyard.yard.memory.token_time import token_seconds

KnownBytes = Callable[[Placement], PlacedBytes | None]
"""Returns what llama.cpp has planned for a placement; None where it was not asked."""


@dataclass(frozen=True, slots=True)
class PlaceableModel:
    """One model, with all that its footprints depend on beside the placement.

    Attributes:
        model: that is placed.
        on_host: its footprint where all of it is on the host.
        context: what its context takes there.
        devices: of the machine, by name.
        known: what llama.cpp has planned for placements.
    """

    model: PlacedModel
    on_host: Footprint
    context: ContextBytes
    devices: Mapping[str, LlamaDevice]
    known: KnownBytes = lambda _: None

    def choices(self, placements: Sequence[Placement]) -> Choices:
        """Return the footprints in ``placements``, the fastest first; of all placements the host alone comes last.

        A placement that is partly on the host is left out where the host alone computes as fast.
        """
        if len(placements) == 1:
            return (replace(self.footprint(placements[0]), token_s=0.0),)
        placed = [replace(self.footprint(each), token_s=self.token_seconds(each)) for each in placements]
        alone = next((each for each in placed if not each.placement.uses_devices), None)
        if alone is None:
            return tuple(sorted(placed, key=lambda each: each.token_s))
        others = [
            each
            for each in placed
            if each is not alone and (each.token_s < alone.token_s or not _is_partly_on_host(each.placement))
        ]
        others.sort(key=lambda each: each.token_s)
        # A device leaves the processor to others, even where a small model is not faster there.
        slowest_s = max((each.token_s for each in others), default=0.0)
        return (*others, replace(alone, token_s=max(alone.token_s, slowest_s)))

    def footprint(self, placement: Placement) -> Footprint:
        """Return the footprint in one placement."""
        if not placement.uses_devices:
            return replace(self.on_host, placement=placement)
        layers = LayerPlacement(self.model.header, placement)
        placed = self.known(placement) or self.model.bytes_of(placement)
        key = f"{self.on_host.weights_key}\n{placement.of_weights}"
        host = placed.get(HOST_NAME, DeviceBytes())
        moved_bytes = (
            self.context.cache
            - host.kv
            + max(0, self.context.compute - host.compute)
            + (self.context.projector if layers.devices else 0)
        )
        shares = {
            name: DeviceShare(name, key, taken.weights, taken.total - taken.weights)
            for name, taken in placed.items()
            if name != HOST_NAME
        }
        if self.context.projector:
            main = (placement.devices or ())[placement.main_device]
            share = shares.get(main, DeviceShare(main, key, 0, 0))
            shares[main] = replace(share, context_bytes=share.context_bytes + self.context.projector)
        footprint = replace(
            self.on_host,
            weights_key=key,
            weights_bytes=max(0, self.on_host.weights_bytes - self.model.weights.moved_bytes(layers)),
            context_bytes=self.on_host.context_bytes - moved_bytes,
            placement=placement,
        )
        return with_shares(footprint, shares.values(), self.devices)

    def token_seconds(self, placement: Placement) -> float:
        """Return about how long a token takes in one placement."""
        speeds = {name: speed_of(device) for name, device in self.devices.items() if device.kind != "cpu"}
        return token_seconds(self.model, placement, speeds)


def with_shares(footprint: Footprint, shares: Iterable[DeviceShare], devices: Mapping[str, LlamaDevice]) -> Footprint:
    """Return the footprint with shares of devices; those in the host's memory count for the host."""
    own: list[DeviceShare] = []
    for share in shares:
        if pool_of(devices[share.pool]) != HOST_NAME:
            own.append(share)
            continue
        footprint = replace(
            footprint,
            weights_bytes=footprint.weights_bytes + share.weights_bytes,
            context_bytes=footprint.context_bytes + share.context_bytes,
        )
    return replace(footprint, devices=tuple(own))


def _is_partly_on_host(placement: Placement) -> bool:
    return placement.gpu_layers is not None or bool(placement.cpu_moe_layers)
