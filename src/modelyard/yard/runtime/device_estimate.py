"""Estimates what a model takes of each device before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from modelyard.engine.hosts.dry_load import run_dry_load
from modelyard.engine.placing import LlamaDevice, divided_by_free_memory
from modelyard.engine.settings import EngineSettings
from modelyard.hub import FilePlan, ModelFiles, Stores, prepare
from modelyard.protocol.placement import PlacedBytes, Placement
from modelyard.yard.memory.placed_footprint import placed_bytes
from modelyard.yard.memory.prediction import ContextSettings
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, engine_settings


@dataclass(frozen=True, slots=True)
class DeviceEstimate:
    """What a model takes of one device.

    Attributes:
        name: of the device, such as "CUDA0".
        weights_bytes, kv_bytes: of its weights, and of its KV cache or states.
        buffer_bytes: of buffers for a step and its outputs.
        free_bytes: of its memory, now.
        budget_bytes: what models may take of it; None where it shares the memory of the machine.
    """

    name: str
    weights_bytes: int
    kv_bytes: int
    buffer_bytes: int
    free_bytes: int
    budget_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes of all that the model takes of it."""
        return self.weights_bytes + self.kv_bytes + self.buffer_bytes


def estimate_devices(
    spec: ModelSpec,
    plan: FilePlan,
    stores: Stores,
    files: ModelFiles,
    placement: Placement,
    found: Sequence[LlamaDevice],
    budgets: Mapping[str, int],
) -> tuple[tuple[DeviceEstimate, ...], bool]:
    """Return what a model takes of each device in a placement, and whether llama.cpp has planned it.

    llama.cpp plans it where the files are on this machine; else it is predicted from their header. The devices are ()
    where the placement uses none, and where a prediction is not possible: the header does not have all tensors, or the
    model does not generate text.

    Args:
        spec: the model.
        plan: how its files are obtained.
        stores: of the plan.
        files: its files, as they are estimated.
        placement: with names of devices.
        found: all devices of the machine, with their memory.
        budgets: bytes that models may take, by pool.

    Raises:
        UnusableModel: llama.cpp cannot load it there.
    """
    if not placement.devices or not found:
        return (), False
    settings = engine_settings(spec, SpecFiles(files, None))
    settings = replace(settings, placement=divided_by_free_memory(placement, found))
    planned = None
    if plan.is_ready:
        paths = prepare(plan, stores, lambda _: True).paths
        planned = run_dry_load(replace(settings, paths=paths))
    placed = planned or _predicted(settings, files)
    free = {device.name: device.free_bytes for device in found}
    estimates = (
        DeviceEstimate(name, each.weights, each.kv, each.compute + each.output, free[name], budgets.get(name))
        for name, each in placed.items()
        if name in placement.devices
    )
    return tuple(sorted(estimates, key=lambda each: each.name)), planned is not None


def _predicted(settings: EngineSettings, files: ModelFiles) -> PlacedBytes:
    if settings.kind != "text" or not _has_all_tensors(files):
        return {}
    context = ContextSettings(
        context_length=settings.context_length,
        running=settings.max_seqs,
        sequences=settings.max_seqs + settings.prefix_slots,
        batch_tokens=settings.step_tokens,
        kv_type=settings.kv_type,
        flash_attn=settings.flash_attn,
        parks=settings.prefix_slots > 0,
    )
    return placed_bytes(files.header, settings.placement, context)


def _has_all_tensors(files: ModelFiles) -> bool:
    """Whether the header has all tensors of the model, which those of a first shard and of an estimate lack."""
    return files.parameter_count is not None
