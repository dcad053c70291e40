"""Estimates a model's header and sizes before its weights are on this machine, enough to predict its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from modelyard.formats.gguf.constants import TENSOR_TYPES
from modelyard.formats.gguf.header import RANKING_HEAD, GgufHeader
from modelyard.formats.gguf.read import parse_header, read_header
from modelyard.formats.gguf.reader import BoundedReader
from modelyard.formats.gguf.values import GgufArray, GgufTensor, Value
from modelyard.hub.preparation.plan import FilePlan, Stores
from modelyard.hub.preparation.plan_limits import limits_of
from modelyard.hub.select.kind import POOLED_KINDS, kind_of
from modelyard.hub.select.modalities import modalities_of
from modelyard.hub.select.model_files import ModelFiles, stamps_before_reading
from modelyard.hub.sources.checkpoint_config import read_config

_ARCHITECTURE: Final = "estimated"

# File that lists the modules of a sentence transformer. Source: sentence-transformers.
_MODULES: Final = "modules.json"
_MEAN: Final = 1

# Ending of the architectures that rank or classify; rerankers of Qwen3 are generators, recognised by their names.
_CLASSIFIER: Final = "ForSequenceClassification"
_QWEN3_RERANKERS: Final = ("qwen3-reranker", "qwen3-vl-reranker")

# Keys of GGUF, and the keys of a transformers configuration that they correspond to; the first one present counts.
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "block_count": ("num_hidden_layers", "n_layer", "n_layers"),
    "context_length": ("max_position_embeddings", "n_positions", "max_sequence_length"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_dim"),
    "attention.head_count": ("num_attention_heads", "n_head", "n_heads"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.sliding_window": ("sliding_window",),
    "expert_used_count": ("num_experts_per_tok",),
}


def estimate_files(plan: FilePlan, stores: Stores) -> ModelFiles:
    """Estimate the files of ``plan``. Exact where there is a GGUF header to read, on this machine or at the hub.

    For a checkpoint that is not converted yet, shapes come from its configuration, and sizes from the average bits per
    weight of the type.

    Raises:
        UnusableModel: the model cannot be served.
    """
    files = _without_projector(plan, stores)
    files = replace(files, warnings=limits_of(plan, files.header, stores.hub))
    if plan.projector.warning:
        files = replace(files, warnings=(*files.warnings, plan.projector.warning))
    if not plan.projector or files.kind in POOLED_KINDS:
        return files
    listing, conversion = plan.decision.listing, plan.projector.conversion
    if conversion is not None and conversion.made is None:
        return replace(files, projector_bytes=conversion.output_bytes, modalities=conversion.modalities)
    path = None if listing.folder is None else listing.folder / plan.projector.name
    if conversion is not None and conversion.made is not None:
        path = conversion.made.path
    # The projector beside a file that was named directly is not in the listing.
    if path is not None and path.is_file():
        header = read_header(path)
        return replace(files, projector_bytes=header.file_size, modalities=modalities_of(header))
    size = listing.size_of((plan.projector.name,))
    with stores.hub.open(listing, plan.projector.name) as file:
        modalities = modalities_of(parse_header(BoundedReader(file, Path(plan.projector.name), size)))
    return replace(files, projector_bytes=size, modalities=modalities)


def _without_projector(plan: FilePlan, stores: Stores) -> ModelFiles:
    decision = plan.decision
    reason = decision.reasons[-1]
    if plan.made is not None:
        stamps = stamps_before_reading((plan.made.path,))
        header = read_header(plan.made.path)
        kind = kind_of(plan.made.path, header, plan.request.kind, has_projector=bool(plan.projector))
        return ModelFiles(
            (plan.made.path,),
            header,
            header.file_size,
            reason,
            header.quantization,
            kind,
            stamps=stamps,
            parameter_count=header.parameter_count,
        )
    listing, first = decision.listing, decision.names[0]
    if decision.form == "gguf":
        if not listing.missing((first,)):
            assert listing.folder is not None
            header = read_header(listing.folder / first)
        else:
            size = listing.size_of((first,))
            with stores.hub.open(listing, first) as file:
                header = parse_header(BoundedReader(file, Path(first), size))
        if decision.target is None:
            size = listing.size_of(decision.names) or header.file_size
            kind = kind_of(Path(first), header, plan.request.kind, has_projector=bool(plan.projector))
            count = header.parameter_count if len(decision.names) == 1 else None
            label = decision.label or header.quantization
            return ModelFiles((Path(first),), header, size, reason, label, kind, parameter_count=count)
        return _scaled(plan, dict(header.metadata), header.architecture, header.scores)
    config = read_config(stores.hub, listing)
    metadata = _metadata(config)
    if _MODULES in listing.names:
        # Any type of pooling marks the model as one of embeddings.
        metadata[f"{_ARCHITECTURE}.pooling_type"] = _MEAN
    return _scaled(plan, metadata, _ARCHITECTURE, _scores(config, plan.name))


def _scaled(plan: FilePlan, metadata: dict[str, Value], architecture: str, scores: int) -> ModelFiles:
    """Return the files of a model with that metadata and number of scores, of the size that the conversion writes."""
    target = plan.decision.target
    assert target is not None
    label = target.label or "BF16"
    tensor_type = max(
        (kind.name for kind in TENSOR_TYPES.values() if label.startswith(kind.name)), key=len, default="F16"
    )
    known = metadata.get(f"{architecture}.embedding_length")
    width, rows = known if isinstance(known, int) else 1, 8 * 1024
    tensors = [GgufTensor("weights", (width, rows), tensor_type, offset=0, size_bytes=plan.output_bytes)]
    if scores:
        tensors.append(GgufTensor(RANKING_HEAD, (width, scores), "F32", offset=0, size_bytes=0))
    header = GgufHeader(3, {"general.architecture": architecture, **metadata}, tuple(tensors), plan.output_bytes)
    path = Path(plan.name)
    kind = kind_of(path, header, plan.request.kind, has_projector=bool(plan.projector))
    return ModelFiles((path,), header, plan.output_bytes, plan.decision.reasons[-1], label, kind)


def _scores(config: Mapping[str, Any], name: str) -> int:
    """Return the number of scores of the converted model's ranking head; 0 for none. Source: llama.cpp, conversion/.

    Rerankers of Qwen3, whose heads score "yes" and "no", count as one score, which is enough to recognise a reranker.
    """
    if any(reranker in name.lower() for reranker in _QWEN3_RERANKERS):
        return 1
    architectures = config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else ""
    if not str(architecture).endswith(_CLASSIFIER):
        return 0
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) and labels else 1


def _metadata(config: dict[str, Any]) -> dict[str, Value]:
    """Return the metadata of GGUF that corresponds to a transformers configuration."""
    inner = next((config[key] for key in ("text_config", "llm_config", "language_config") if key in config), config)
    facts: dict[str, Any] = {**config, **inner} if isinstance(inner, dict) else config
    metadata: dict[str, Value] = {}
    for key, names in _NUMBERS.items():
        number = next((facts[name] for name in names if isinstance(facts.get(name), int)), None)
        if number is not None:
            metadata[f"{_ARCHITECTURE}.{key}"] = number
    if isinstance(vocabulary := facts.get("vocab_size"), int):
        metadata["tokenizer.ggml.tokens"] = GgufArray("str", vocabulary)
        metadata["tokenizer.ggml.merges"] = GgufArray("str", vocabulary)
    return metadata
