"""What a model takes in each placement that it may have, by its configuration, its files and the machine's devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from modelyard.config import running_at_once
from modelyard.engine.placing import LlamaDevice, accelerators, resolve
from modelyard.engine.settings import DRAFT_BATCH_TOKENS, micro_batch
from modelyard.formats.gguf.header import GgufHeader
from modelyard.formats.gguf.read import read_header
from modelyard.hub import POOLED_KINDS, ModelFiles
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.cache_bytes import context_cells
from modelyard.yard.memory.choice_footprints import KnownBytes, PlaceableModel
from modelyard.yard.memory.footprint import Choices, Footprint
from modelyard.yard.memory.layer_shapes import number_of
from modelyard.yard.memory.placed_footprint import text_model
from modelyard.yard.memory.placement_choices import may_use_host_alone, placement_choices
from modelyard.yard.memory.pooling_footprint import pooled_model, pooled_step
from modelyard.yard.memory.prediction import ContextSettings, context_parts, footprint
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, draft_of, footprint_of, pooled_context
from modelyard.yard.runtime.placements import placement_of

_ALL_GONE: Final = "All that were there when the server started are gone."


def choices_of(
    spec: ModelSpec,
    files: SpecFiles,
    devices: Sequence[LlamaDevice] = (),
    known: KnownBytes = lambda _: None,
    known_of_draft: KnownBytes = lambda _: None,
    *,
    are_gone: bool = False,
) -> Choices:
    """Return the footprints of a model in all placements that it may have, the fastest first.

    Without accelerators, and where the header does not have all tensors (a first shard that the others are not beside),
    the only placement is the configured one, and all that the model takes counts for the host. Reads the headers of
    further shards where there are accelerators.

    Args:
        spec: the model.
        files: its files, and those of its draft model.
        devices: of the machine, with their memory.
        known: what llama.cpp has planned for placements of the model, without its draft model.
        known_of_draft: the same of the draft model.
        are_gone: whether there were accelerators, and none is left. The model is then put on the host explicitly,
            because llama.cpp still lists them.

    Raises:
        UnusableModel: it is put on a device that does not exist, or a shard cannot be read.
    """
    choices = _without_adapters(spec, files, devices, known, known_of_draft, are_gone=are_gone)
    added = files.adapters.size_bytes(spec.config.runtime.batch_tokens)
    return tuple(each.with_added(added) for each in choices) if added else choices


def _without_adapters(
    spec: ModelSpec,
    files: SpecFiles,
    devices: Sequence[LlamaDevice],
    known: KnownBytes,
    known_of_draft: KnownBytes,
    *,
    are_gone: bool,
) -> Choices:
    configured = placement_of(spec.config, spec.model)
    alone = _alone(spec, files, configured)
    if not accelerators(devices) and not are_gone:
        return alone
    configured = resolve(configured, devices, lambda: _ALL_GONE)
    if not configured.devices or any(each.parameter_count is None for each in files.all):
        return (replace(alone[0], placement=configured),)
    model = _placeable(spec, _whole(files.model), devices, known)
    header = model.model.header
    choices = model.choices(
        placement_choices(
            configured,
            devices,
            layers=header.block_count,
            has_experts=_has_experts(header),
            is_divisible=files.model.kind not in POOLED_KINDS,
        )
    )
    return _drafted(spec, files, choices, devices, known_of_draft)


def draft_placement(
    spec: ModelSpec,
    files: SpecFiles,
    target: Placement,
    devices: Sequence[LlamaDevice],
    *,
    are_gone: bool = False,
) -> Placement:
    """Return where the draft model of a model is put, which is put in ``target``.

    It is where its own configuration says. If that says nothing, it is whole on the first device of its target, because
    both compute in turns, or with it on the host. ``are_gone`` is as in ``choices_of``.

    Raises:
        UnusableModel: it is put on a device that does not exist.
    """
    draft = draft_of(spec)
    if draft is None or files.draft is None:
        return ON_HOST
    configured = placement_of(spec.config, draft)
    if not accelerators(devices) and not are_gone:
        return configured
    resolved = resolve(configured, devices, lambda: _ALL_GONE)
    if configured.devices is None and may_use_host_alone(configured):
        names = target.devices or ()
        return replace(configured, devices=names[target.main_device : target.main_device + 1])
    header = files.draft.header
    return placement_choices(resolved, devices, layers=header.block_count, has_experts=_has_experts(header))[0]


def _alone(spec: ModelSpec, files: SpecFiles, placement: Placement) -> Choices:
    return (replace(footprint_of(spec.config, spec.model, files.model, files.draft), placement=placement),)


def _placeable(spec: ModelSpec, files: ModelFiles, devices: Sequence[LlamaDevice], known: KnownBytes) -> PlaceableModel:
    runtime, header = spec.config.runtime, files.header
    running = running_at_once(spec.config, spec.model)
    by_name = {device.name: device for device in devices}
    if files.kind in POOLED_KINDS:
        pooling = pooled_context(spec.config, spec.model)
        pooled = pooled_step(header, pooling)
        placed = pooled_model(header, pooled, pooling)
        return PlaceableModel(placed, footprint(files, pooled.context.total), pooled.context, by_name, known)
    return _text_placeable(
        spec,
        files,
        by_name,
        known,
        context_length=spec.model.device.fixed_seq_len,
        sequences=running + runtime.prefix_cache_n,
        batch_tokens=runtime.batch_tokens,
        parks=runtime.prefix_cache_n > 0,
    )


def _text_placeable(
    spec: ModelSpec,
    files: ModelFiles,
    devices: dict[str, LlamaDevice],
    known: KnownBytes,
    *,
    context_length: int | None,
    sequences: int,
    batch_tokens: int,
    parks: bool,
) -> PlaceableModel:
    runtime = spec.config.runtime
    settings = ContextSettings(
        context_length=context_length,
        running=running_at_once(spec.config, spec.model),
        sequences=sequences,
        batch_tokens=batch_tokens,
        kv_type=runtime.kv_type,
        flash_attn=runtime.flash_attn,
        parks=parks,
    )
    context = context_parts(files, settings)
    step_tokens = micro_batch(batch_tokens, runtime.flash_attn, has_projector=bool(files.projector_bytes))
    placed = text_model(files.header, replace(settings, batch_tokens=step_tokens))
    return PlaceableModel(placed, footprint(files, context.total), context, devices, known)


def _drafted(
    spec: ModelSpec, files: SpecFiles, choices: Choices, devices: Sequence[LlamaDevice], known: KnownBytes
) -> Choices:
    """Return the choices with the draft model, if there is one, where it is put beside each."""
    if files.draft is None:
        return choices
    draft = _text_placeable(
        spec,
        _whole(files.draft),
        {device.name: device for device in devices},
        known,
        context_length=context_cells(files.model.header, spec.model.device.fixed_seq_len),
        sequences=running_at_once(spec.config, spec.model),
        batch_tokens=DRAFT_BATCH_TOKENS,
        parks=False,
    )
    placed: dict[Placement, Footprint] = {}
    drafted = []
    for choice in choices:
        where = draft_placement(spec, files, choice.placement, devices)
        if where not in placed:
            placed[where] = draft.footprint(where)
        drafted.append(choice.drafted_by(placed[where]))
    return tuple(drafted)


def _has_experts(header: GgufHeader) -> bool:
    return number_of(header, "expert_count") > 0


def _whole(files: ModelFiles) -> ModelFiles:
    """Return the files with one header for all of them.

    Raises:
        UnusableModel: a further shard cannot be read.
    """
    if len(files.paths) < 2:
        return files
    return replace(files, header=joined([files.header, *map(read_header, files.paths[1:])]))


def joined(shards: Sequence[GgufHeader]) -> GgufHeader:
    """Return the header of one file with all tensors of the shards, one behind the other. Pure."""
    first = shards[0]
    tensors, end = [], 0
    for shard in shards:
        tensors += [replace(tensor, offset=end + tensor.offset) for tensor in shard.tensors]
        end += shard.file_size
    metadata = {**first.metadata, "split.no": 0, "split.count": 1}
    return replace(first, metadata=metadata, tensors=tuple(tensors), file_size=end)
