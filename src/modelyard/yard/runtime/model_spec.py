"""What a model needs by its configuration: files, memory, and the settings of its engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from modelyard.config import Config, Model, running_at_once
from modelyard.engine.hosts.trial_task import PROCESS_BYTES, TrialTask, trial_of
from modelyard.engine.settings import DRAFT_BATCH_TOKENS, EngineSettings
from modelyard.hub import POOLED_KINDS, FilePlan, FileRequest, ModelFiles, Stores, plan_files
from modelyard.hub.select.gguf import check_tag
from modelyard.protocol.placement import ON_HOST
from modelyard.protocol.prompts import Sampling
from modelyard.system.cores import compute_cores
from modelyard.system.file_stamp import FileStamp
from modelyard.yard.memory.cache_bytes import context_cells, is_windowed
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.memory.layer_shapes import vocabulary_size
from modelyard.yard.memory.pooling_footprint import predict_embedder
from modelyard.yard.memory.prediction import ContextSettings, predict
from modelyard.yard.runtime.adapter_files import NO_ADAPTERS, AdapterFiles
from modelyard.yard.runtime.attention import flash_attention
from modelyard.yard.runtime.placements import placement_of


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model, and the configuration that it belongs to."""

    config: Config
    model: Model


@dataclass(frozen=True, slots=True)
class SpecFiles:
    """The files of a model, those of its draft model, and those of its adapters."""

    model: ModelFiles
    draft: ModelFiles | None
    adapters: AdapterFiles = NO_ADAPTERS

    @property
    def all(self) -> tuple[ModelFiles, ...]:
        """The files of each model that is loaded."""
        return (self.model,) if self.draft is None else (self.model, self.draft)

    @property
    def stamps(self) -> tuple[FileStamp, ...]:
        """The stamps of all files as they were when their headers were read."""
        return (*self.of_weights, *self.adapters.stamps)

    @property
    def of_weights(self) -> tuple[FileStamp, ...]:
        """The stamps of all files but those of adapters, which nothing reads once they are loaded."""
        return self.model.stamps if self.draft is None else (*self.model.stamps, *self.draft.stamps)


def draft_of(spec: ModelSpec) -> Model | None:
    """Return the draft model of a model; None without one."""
    return next((model for model in spec.config.models if spec.model.draft in model.names), None)


def footprint_of(config: Config, model: Model, files: ModelFiles, draft: ModelFiles | None = None) -> Footprint:
    """Return what a model on ``files`` takes as it is configured; ``draft`` has the files of its draft model."""
    runtime = config.runtime
    running = running_at_once(config, model)
    if files.kind in POOLED_KINDS:
        return predict_embedder(files, pooled_context(config, model))
    flash_attn = flash_attention(config, model, files)
    context = ContextSettings(
        context_length=model.device.fixed_seq_len,
        running=running,
        sequences=running + runtime.prefix_cache_n,
        batch_tokens=runtime.batch_tokens,
        kv_type=runtime.kv_type,
        flash_attn=flash_attn,
        parks=runtime.prefix_cache_n > 0,
    )
    footprint = predict(files, context)
    if draft is None:
        return footprint
    cells = context_cells(files.header, model.device.fixed_seq_len)
    drafting = replace(context, context_length=cells, sequences=running, batch_tokens=DRAFT_BATCH_TOKENS, parks=False)
    return footprint.drafted_by(predict(draft, drafting))


def pooled_context(config: Config, model: Model) -> ContextSettings:
    """Return the settings of the context of an embedding or ranking model, all of whose sequences run."""
    runtime, running = config.runtime, running_at_once(config, model)
    return ContextSettings(
        context_length=model.device.fixed_seq_len,
        running=running,
        sequences=running,
        batch_tokens=runtime.batch_tokens,
        kv_type=runtime.kv_type,
        flash_attn=runtime.flash_attn,
    )


def draft_settings(settings: EngineSettings, files: SpecFiles) -> EngineSettings | None:
    """Return settings of an engine whose model and context are those of the draft model; None without one.

    Args:
        settings: of the engine of the model that it drafts for.
        files: of that model.

    Source: ``engine.loading.load``, which makes the context of the draft model.
    """
    if files.draft is None:
        return None
    return replace(
        settings,
        paths=files.draft.paths,
        name=settings.draft_name,
        kind="text",
        placement=settings.draft_placement,
        context_length=context_cells(files.model.header, settings.context_length),
        is_windowed=False,
        prefix_slots=0,
        batch_tokens=DRAFT_BATCH_TOKENS,
        draft=(),
        projector=None,
        files=files.draft.stamps,
        adapters=(),
    )


def trial_tasks(files: SpecFiles, settings: EngineSettings) -> list[tuple[TrialTask, ModelFiles]]:
    """Return the trials that precede an engine of ``settings``: of the model, and of its draft model."""
    tried = [(files.model, settings)]
    if files.draft is not None:
        draft = replace(settings, paths=files.draft.paths, name=settings.draft_name, placement=settings.draft_placement)
        tried.append((files.draft, draft))
    return [
        (
            trial_of(
                each,
                file_bytes=model.size_bytes,
                trained_context=model.header.context_length,
                vocabulary_size=vocabulary_size(model.header),
                cores=compute_cores(),
            ),
            model,
        )
        for model, each in tried
    ]


def trial_bytes(task: TrialTask, files: ModelFiles) -> int:
    """Return the memory that the trial of a model takes beside its weights, which the engine loads only afterwards."""
    if files.kind in POOLED_KINDS:
        return PROCESS_BYTES
    settings = task.settings
    context = ContextSettings(
        context_length=settings.context_length,
        running=settings.max_seqs,
        sequences=settings.max_seqs + settings.prefix_slots,
        batch_tokens=settings.batch_tokens,
        kv_type=settings.kv_type,
        flash_attn=settings.flash_attn,
        parks=settings.prefix_slots > 0,
    )
    return PROCESS_BYTES + predict(files, context).context_bytes


def plan_of(config: Config, model: Model, stores: Stores, fits: Callable[[FilePlan], bool]) -> FilePlan:
    """Return how the files of a model are obtained.

    Raises:
        UnusableModel: they cannot be obtained; the message says what to do.
    """
    if model.reference.quant is not None:
        check_tag(model.model_id, model.reference.quant)
    return plan_files(file_request(config, model), stores, fits)


def file_request(config: Config, model: Model) -> FileRequest:
    """Return the files that a model asks for."""
    quantization, file = model.quantization, model.reference.file
    is_uqff = file is not None and file.lower().endswith(".uqff")
    return FileRequest(
        model.source,
        kind=model.kind,
        quant=quantization.quant or model.reference.quant,
        isq=quantization.isq,
        from_uqff=file if is_uqff else quantization.from_uqff,
        dtype=model.dtype,
        file_format=model.format.format,
        quantized_file=(file,) if file is not None and not is_uqff else model.format.quantized_files,
        mmproj=model.format.mmproj,
        imatrix=quantization.imatrix,
        mirror_repos=config.hub.siblings,
    )


def engine_settings(spec: ModelSpec, files: SpecFiles) -> EngineSettings:
    """Return the settings of an engine of a model on its files. Reads its chat template, if one is configured."""
    config, model, draft = spec.config, spec.model, draft_of(spec)
    return EngineSettings(
        name=model.id,
        paths=files.model.paths,
        quantization=files.model.quantization,
        kind="text" if files.model.kind == "multimodal" else files.model.kind,
        context_length=model.device.fixed_seq_len,
        is_windowed=config.runtime.prefix_cache_n > 0 and is_windowed(files.model.header),
        max_seqs=running_at_once(config, model),
        prefix_slots=config.runtime.prefix_cache_n,
        placement=placement_of(config, model),
        chat_template=model.chat_template.read_text("utf-8") if model.chat_template else None,
        tool_format=model.tool_format,
        reasoning_format=model.reasoning_format,
        sampling=Sampling(**model.sampling.model_dump()),
        batch_tokens=config.runtime.batch_tokens,
        kv_type=config.runtime.kv_type,
        flash_attn=flash_attention(config, model, files.model),
        prompt_lookup=config.runtime.prompt_lookup,
        draft=() if files.draft is None else files.draft.paths,
        draft_name=model.draft or "",
        draft_placement=ON_HOST if draft is None else placement_of(config, draft),
        weight=model.weight,
        priority=model.priority,
        kv_keep=config.memory.kv_keep,
        kv_keep_bytes=config.memory.kv_keep_bytes,
        kv_dir=config.memory.kv_folder,
        projector=files.model.projector,
        audio_encoder=files.model.modalities.audio_encoder,
        files=files.of_weights,
        adapters=files.adapters.files,
    )
