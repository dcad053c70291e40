"""What a model takes of the machine's memory while it is loaded, in bytes. Values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from modelyard.protocol.placement import ANYWHERE, HOST_NAME, DeviceBytes, PlacedBytes, Placement

# What a process for an engine takes beside what the engine takes on a thread. Measured: docs/performance.md.
PROCESS_BYTES: Final = 20 << 20

_NO_BYTES: Final[Mapping[str, DeviceBytes]] = {}


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """Memory that a model takes of one device, in bytes.

    Attributes:
        pool: name of the device's memory.
        weights_key: equal for models that share one copy of their weights.
        weights_bytes: of tensors.
        context_bytes: of KV cells, states and buffers.
    """

    pool: str
    weights_key: str
    weights_bytes: int
    context_bytes: int

    @property
    def total_bytes(self) -> int:
        """Bytes of weights and context."""
        return self.weights_bytes + self.context_bytes


class ContextSize(NamedTuple):
    """A size that a context may have.

    Attributes:
        cells: KV cells.
        context_bytes: of the host, as in ``Footprint``.
    """

    cells: int
    context_bytes: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that a model takes while it is loaded in one placement, in bytes: of the host, and of each device.

    Attributes:
        weights_key: equal for models that share one copy of their weights.
        weights_bytes: weights and vocabulary on the host, shared by all engines on the same files.
        context_bytes: KV cells, compute and output buffers on the host, which each engine has for itself.
        draft_key, draft_bytes: key and bytes of the weights of its draft model; "" and 0 without one.
        mapped_bytes: those of ``weights_bytes`` that a parked model gives back, because they are pages of files; 0
            until it was loaded.
        devices: what it takes of devices, its draft model included.
        placement: where it is put.
        token_s: seconds that a token takes in this placement, estimated from what is read for it; 0.0 where there is no
            other placement to compare with.
        sizes: that its context may have, the smallest first, which is one of these now; () where its size is fixed.
        cells: KV cells of its context; 0 where its size is fixed.
    """

    weights_key: str
    weights_bytes: int
    context_bytes: int
    draft_key: str = ""
    draft_bytes: int = 0
    mapped_bytes: int = 0
    devices: tuple[DeviceShare, ...] = ()
    placement: Placement = ANYWHERE
    token_s: float = 0.0
    sizes: tuple[ContextSize, ...] = ()
    cells: int = 0

    def with_cells(self, cells: int) -> Footprint:
        """Return the footprint with the smallest context that has so many cells; without one, with the largest."""
        if not self.sizes:
            return self
        size = next((each for each in self.sizes if each.cells >= cells), self.sizes[-1])
        return self if size.cells == self.cells else replace(self, cells=size.cells, context_bytes=size.context_bytes)

    @property
    def smallest(self) -> Footprint:
        """The footprint with the smallest context that it may have."""
        return self.with_cells(0)

    @property
    def whole(self) -> Footprint:
        """The footprint with the largest context that it may have, which was promised to requests."""
        return self.with_cells(self.sizes[-1].cells) if self.sizes else self

    def _with_context_bytes(self, change: Callable[[int], int]) -> Footprint:
        """Return the footprint with ``change`` applied to what the context takes of the host, in each of its sizes."""
        sizes = tuple(ContextSize(cells, change(size)) for cells, size in self.sizes)
        return replace(self, context_bytes=change(self.context_bytes), sizes=sizes)

    @property
    def total_bytes(self) -> int:
        """Bytes of weights and context, on the host and on devices."""
        return self.host_bytes + sum(share.total_bytes for share in self.devices)

    @property
    def host_bytes(self) -> int:
        """Bytes of weights and context on the host."""
        return sum(self.weights.values()) + self.context_bytes

    @property
    def all_weights_bytes(self) -> int:
        """Bytes of weights, on the host and on devices."""
        return sum(self.weights.values()) + sum(share.weights_bytes for share in self.devices)

    @property
    def weights(self) -> Mapping[str, int]:
        """Bytes of all weights that it needs on the host, those of a draft model included, by their keys."""
        weights = {self.weights_key: self.weights_bytes}
        if self.draft_key:
            weights[self.draft_key] = max(self.draft_bytes, weights.get(self.draft_key, 0))
        return weights

    def drafted_by(self, draft: Footprint) -> Footprint:
        """Return the footprint with a draft model, which has a context beside this one's."""
        return replace(
            self._with_context_bytes(lambda size: size + draft.context_bytes),
            draft_key=draft.weights_key,
            draft_bytes=draft.weights_bytes,
            devices=(*self.devices, *draft.devices),
        )

    def in_process(self) -> Footprint:
        """Return the footprint in a process of its own, which shares weights only with models on the same files there.

        The weights of a draft model are in memory twice where that model has an engine, too.
        """
        return replace(
            self,
            weights_key=f"process {self.weights_key}",
            # A process lives as long as the weights in it, also while they are parked.
            weights_bytes=self.weights_bytes + PROCESS_BYTES,
            draft_key=f"process {self.weights_key} {self.draft_key}" if self.draft_key else "",
            devices=tuple(
                replace(share, weights_key=f"process {self.weights_key} {share.weights_key}") for share in self.devices
            ),
        )

    def with_context(self, bytes_: int) -> Footprint:
        """Return the footprint with at least ``bytes_`` beside the weights."""
        return self._with_context_bytes(lambda size: max(size, bytes_))

    def with_added(self, bytes_: int) -> Footprint:
        """Return the footprint with ``bytes_`` more beside the weights, or less where it is negative.

        They are where the weights are, as the matrices of adapters and what these add to a step. Where all layers are
        on devices, the host has nothing of them.
        """
        # A draft model has no adapters.
        weights = [share.weights_bytes if share.weights_key == self.weights_key else 0 for share in self.devices]
        if not any(weights):
            return self._with_context_bytes(lambda size: size + bytes_)
        on_host = 0 if self.placement.gpu_layers is None else self.weights_bytes
        parts = [round(bytes_ * each / (sum(weights) + on_host)) for each in weights]
        shares = tuple(
            replace(share, context_bytes=share.context_bytes + part)
            for share, part in zip(self.devices, parts, strict=True)
        )
        rest = bytes_ - sum(parts)
        return replace(self._with_context_bytes(lambda size: size + rest), devices=shares)

    def corrected(
        self, weights_bytes: int, context_bytes: int, devices: Mapping[str, DeviceBytes] = _NO_BYTES
    ) -> Footprint:
        """Return the footprint, raised to what was allocated for the weights, and for KV cells and outputs.

        Args:
            weights_bytes, context_bytes: on the host; the weights without those of a draft model.
            devices: on devices, by the name of the pool; the weights without those of a draft model.
        """
        shares = self.devices
        for pool, taken in devices.items():
            if not any(share.pool == pool for share in shares):
                shares = (*shares, DeviceShare(pool, self.weights_key, 0, 0))
            # The first share of a device is that of the model itself, unless its draft model alone is there.
            first = next(share for share in shares if share.pool == pool)
            others_bytes = sum(share.context_bytes for share in shares if share.pool == pool and share is not first)
            raised = replace(
                first,
                weights_bytes=max(first.weights_bytes, taken.weights),
                context_bytes=max(first.context_bytes, taken.total - taken.weights - others_bytes),
            )
            shares = tuple(raised if share is first else share for share in shares)
        missing_bytes = max(0, context_bytes - self.context_bytes)
        return replace(
            self._with_context_bytes(lambda size: size + missing_bytes),
            weights_bytes=max(self.weights_bytes, weights_bytes),
            devices=shares,
        )

    def measured(
        self, weights_bytes: int, context_bytes: int, allocated: PlacedBytes, pools: Collection[str]
    ) -> Footprint:
        """Return the footprint, raised to what an engine has reported.

        Args:
            weights_bytes, context_bytes: of weights, and of KV cells and outputs, wherever they are.
            allocated: by device; the weights without those of a draft model.
            pools: devices that have memory of their own; all others share the host's.
        """
        devices = {name: taken for name, taken in allocated.items() if name in pools}
        # Where a projector is on a device, its bytes are a part of ``context_bytes`` alone.
        on_devices = sum(taken.weights for taken in devices.values())
        others = [taken for name, taken in allocated.items() if name not in pools]
        if devices:
            weights_bytes, context_bytes = weights_bytes - on_devices, sum(taken.kv + taken.output for taken in others)
        return self.corrected(weights_bytes, context_bytes, devices)

    def mapping(self, bytes_: int) -> Footprint:
        """Return the footprint with ``bytes_`` of the weights on the host as pages of files."""
        return replace(self, mapped_bytes=min(bytes_, self.weights_bytes))

    def exceeds(self, other: Footprint) -> bool:
        """Whether it takes more of a device than ``other``."""
        taken: Counter[str] = Counter()
        for share in self.devices:
            taken[share.pool] += share.total_bytes
        for share in other.devices:
            taken[share.pool] -= share.total_bytes
        return any(size > 0 for size in taken.values())

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens that it is expected to compute in a second, one after the other; None where that was not estimated."""
        return 1 / self.token_s if self.token_s else None

    def without_room(self, spare: Mapping[str, int]) -> Footprint:
        """Return the footprint raised so that it does not fit its devices: an allocation failed there.

        A device with a single byte more may hold it: how much was missing is not known.

        Args:
            spare: bytes that were left of each device beside everything there, this footprint included.
        """
        missing = {pool: max(0, size + 1) for pool, size in spare.items()}
        # The first share of a device is raised, because a draft model may have a second one.
        devices = tuple(
            replace(share, context_bytes=share.context_bytes + missing.pop(share.pool, 0)) for share in self.devices
        )
        return replace(self, devices=devices)


def taken_together(footprints: Iterable[tuple[Footprint, bool]]) -> dict[str, int]:
    """Return the bytes that models take together of the host and of each device; shared weights count once.

    Args:
        footprints: of models, each with whether it takes its context, too, and not its weights alone.
    """
    context_bytes = 0
    host_weights: dict[str, int] = {}
    device_weights: dict[tuple[str, str], int] = {}
    taken = {HOST_NAME: 0}
    # No method is called for a model without devices: each step of a server adds up all that are loaded.
    for footprint, has_context in footprints:
        if has_context:
            context_bytes += footprint.context_bytes
        key = footprint.weights_key
        size = footprint.weights_bytes - (0 if has_context else footprint.mapped_bytes)
        if size > host_weights.get(key, -1):
            host_weights[key] = size
        if footprint.draft_key and footprint.draft_bytes > host_weights.get(footprint.draft_key, -1):
            host_weights[footprint.draft_key] = footprint.draft_bytes
        for share in footprint.devices:
            taken[share.pool] = taken.get(share.pool, 0) + (share.context_bytes if has_context else 0)
            on_device = share.pool, share.weights_key
            device_weights[on_device] = max(device_weights.get(on_device, 0), share.weights_bytes)
    taken[HOST_NAME] = context_bytes + sum(host_weights.values())
    for (pool, _), size in device_weights.items():
        taken[pool] += size
    return taken


Choices: TypeAlias = tuple[Footprint, ...]
"""Footprints of a model in all placements that it may have, the fastest first; never empty."""
