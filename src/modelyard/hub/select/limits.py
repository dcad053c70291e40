"""Models that llama.cpp computes differently from their original implementation. Pure.

Each entry was found by comparing answers with those of transformers; docs/models.md lists the comparisons. A model
whose answers would be wrong from the first token on is refused; one that differs for some prompts is served with a
warning.
Source: llama.cpp, src/models and conversion/, of the engine's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.header import GgufHeader
from modelyard.hub.select import gemma_3n

# Classes of transformers with a sliding window in all layers, or in those that layer_types names, which llama.cpp
# computes without a window.
_WINDOWLESS: Final = frozenset({
    "MistralForCausalLM", "MixtralForCausalLM", "Starcoder2ForCausalLM", "Qwen2ForCausalLM", "Qwen2MoeForCausalLM",
    "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "PhimoeForCausalLM", "PhiMoEForCausalLM", "Dots1ForCausalLM",
    "SmolLM3ForCausalLM", "Phi3ForCausalLM",
})  # fmt: skip
# Classes of _WINDOWLESS whose window applies only if use_sliding_window is set.
_WINDOW_ON_DEMAND: Final = frozenset({
    "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "SmolLM3ForCausalLM",
})  # fmt: skip

_SPARSE_MIXERS: Final = frozenset({"PhimoeForCausalLM", "PhiMoEForCausalLM"})

# Number of layers of the only EXAONE 4 whose sliding windows llama.cpp applies.
_EXAONE4_LAYERS: Final = 64


def header_limits(header: GgufHeader) -> tuple[str, ...]:
    """Return warnings about the model of a GGUF file, in sentences."""
    return tuple(_header_limits(header))


def checkpoint_limits(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return warnings about a checkpoint with that ``config.json``, in sentences."""
    return tuple(_config_limits(_text_config(config), _architecture(config)))


def check_checkpoint(config: Mapping[str, Any]) -> None:
    """Check that llama.cpp can compute a checkpoint correctly.

    Raises:
        UnusableModel: every answer of the model would be wrong.
    """
    architecture = _architecture(config)
    if architecture == "AfmoeForCausalLM" and not config.get("mup_enabled"):
        raise UnusableModel(
            "llama.cpp scales the embeddings of every AfmoeForCausalLM, as 'mup_enabled' in its config.json asks for. "
            "This model does not set it: its answers would be wrong, and it cannot be served."
        )
    if architecture in gemma_3n.CLASSES and (keys := gemma_3n.differing_keys(_text_config(config))):
        raise UnusableModel(
            "llama.cpp computes Gemma 3n with the values of the published models, E2B and E4B, alone. This model has "
            f"other values of {', '.join(map(repr, keys))} in its config.json: it cannot be served."
        )


def _header_limits(header: GgufHeader) -> Iterator[str]:
    architecture, context = header.architecture, header.context_length
    window = _number(header, "attention.sliding_window")
    is_ignored = architecture == "phi3" or (architecture == "exaone4" and header.block_count != _EXAONE4_LAYERS)
    if is_ignored and 0 < window < context:
        yield window_ignored(window)
    original = _number(header, "rope.scaling.original_context_length")
    if 0 < original < context and has_factors_by_context(header):
        yield factors_by_context(original)
    if architecture == "phimoe":
        yield SPARSE_MIXING
    if architecture == "gpt-oss" and header.metadata.get("gpt-oss.rope.scaling.type") == "yarn":
        yield RANGE_ROUNDED
    if architecture == gemma_3n.ARCHITECTURE and gemma_3n.has_other_kv_layers(header):
        yield OTHER_KV_LAYERS


def _config_limits(config: Mapping[str, Any], architecture: str) -> Iterator[str]:
    if architecture == "Llama4ForConditionalGeneration" and config.get("vision_config"):
        yield PICTURES_DISORDERED
    context = _integer(config, "max_position_embeddings")
    window = _integer(config, "sliding_window")
    is_ignored = architecture in _WINDOWLESS or (
        architecture == "Exaone4ForCausalLM" and config.get("num_hidden_layers") != _EXAONE4_LAYERS
    )
    is_used = bool(config.get("use_sliding_window", architecture not in _WINDOW_ON_DEMAND))
    types = config.get("layer_types")
    if isinstance(types, list):
        is_used = is_used and "sliding_attention" in types
    if is_ignored and is_used and 0 < window < context:
        yield window_ignored(window)
    if architecture in _SPARSE_MIXERS:
        yield SPARSE_MIXING
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict):
        return
    original = _integer(rope, "original_max_position_embeddings") or _integer(
        config, "original_max_position_embeddings"
    )
    if rope.get("long_factor") and 0 < original < context:
        yield factors_by_context(original)
    if (rope.get("rope_type") or rope.get("type")) == "yarn" and rope.get("truncate") is False:
        yield RANGE_ROUNDED


def window_ignored(window: int) -> str:
    """Return the warning for a model with a sliding window that llama.cpp ignores."""
    return (
        f"llama.cpp ignores this model's sliding window of {window} tokens: answers to longer prompts differ from "
        "those of the original."
    )


def has_factors_by_context(header: GgufHeader) -> bool:
    """Whether llama.cpp computes otherwise in a longer context, by separate rotary factors."""
    return any(tensor.name.startswith("rope_factors_long") for tensor in header.tensors)


def factors_by_context(original: int) -> str:
    """Return the warning for a model with separate rotary factors for short and long prompts."""
    return (
        "llama.cpp chooses this model's rotary factors by the size of the context, not of the prompt: with max_seq_len "
        f"above {original}, answers to prompts of up to {original} tokens differ a little from those of the original."
    )


SPARSE_MIXING: Final = (
    "llama.cpp weighs this model's experts by a softmax, and not by the sparse mixing that it was trained with: "
    "answers differ from those of the original."
)

PICTURES_DISORDERED: Final = (
    "llama.cpp gives this model the parts of a picture in another order than it was trained with: answers about "
    "pictures are poor. Answers to text are not affected."
)

RANGE_ROUNDED: Final = (
    "llama.cpp rounds the range in which this model's rotary frequencies are scaled (YaRN with 'truncate': false): "
    "answers differ from those of the original."
)

OTHER_KV_LAYERS: Final = (
    f"llama.cpp computes keys and values for the first {gemma_3n.OWN_KV_LAYERS} layers of every Gemma 3n. This model "
    "has another number of such layers: its answers are wrong."
)


def _number(header: GgufHeader, suffix: str) -> int:
    return _integer(header.metadata, f"{header.architecture}.{suffix}")


def _integer(facts: Mapping[str, Any], key: str) -> int:
    value = facts.get(key)
    return value if isinstance(value, int) else 0


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a checkpoint's language model, which multimodal checkpoints nest in a table."""
    return {**config, **(config.get("text_config") or {})}


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""
