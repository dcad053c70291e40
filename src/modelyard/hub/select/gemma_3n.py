"""What llama.cpp assumes of every Gemma 3n: the values of the two published models, E2B and E4B. Pure.

Models that were cut out of E4B (MatFormer) may have others. llama.cpp would compute them without an error, but wrongly.
Source: llama.cpp, src/models/gemma3n.cpp, the graph in src/models/models.h, and llama_hparams.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from modelyard.formats.gguf.header import GgufHeader

CLASSES: Final = frozenset({"Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"})
ARCHITECTURE: Final = "gemma3n"

# Layers with keys and values of their own; the rest use those of the last two. Source: n_layer_kv_from_start.
OWN_KV_LAYERS: Final = 20
# Layers with sparse activations, and the share of the activations that is set to zero there.
# Source: n_layer_sparsity and f_sparsity_std_mul, the quantile of 0.95.
_SPARSE_LAYERS: Final = 10
_SPARSITY: Final = 0.95
# A share may have been written as a number of 16 bits.
_TOLERANCE: Final = 2.0**-8

# Defaults of transformers' Gemma3nTextConfig, which a config.json may leave out.
_LAYERS: Final = 35
_SHARED_LAYERS: Final = 15

_FIXED: Final[Mapping[str, Any]] = {
    "altup_active_idx": 0,
    "altup_correct_scale": True,
    "altup_num_inputs": 4,
    "hidden_size_per_layer_input": 256,
    "laurel_rank": 64,
}


def differing_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a language model's configuration with other values than llama.cpp assumes."""
    return tuple(_differing(config))


def has_other_kv_layers(header: GgufHeader) -> bool:
    """Tell whether a GGUF file of Gemma 3n declares other layers with keys and values than llama.cpp computes.

    False if it declares none.
    """
    return _are_other_layers(header.block_count, header.metadata.get(f"{ARCHITECTURE}.attention.shared_kv_layers"))


def _differing(config: Mapping[str, Any]) -> Iterator[str]:
    layers = config.get("num_hidden_layers", _LAYERS)
    if _are_other_layers(layers, config.get("num_kv_shared_layers", _SHARED_LAYERS)):
        yield "num_kv_shared_layers"
    sparsity = config.get("activation_sparsity_pattern")
    if isinstance(sparsity, list) and not _is_published_sparsity(sparsity):
        yield "activation_sparsity_pattern"
    widths = config.get("intermediate_size")
    if isinstance(widths, list) and any(width != widths[0] for width in widths):
        yield "intermediate_size"
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            yield key


def _are_other_layers(layers: object, shared: object) -> bool:
    return isinstance(layers, int) and isinstance(shared, int) and layers - shared != min(layers, OWN_KV_LAYERS)


def _is_published_sparsity(pattern: list[Any]) -> bool:
    return all(
        isinstance(share, int | float)
        and math.isclose(share, _SPARSITY if layer < _SPARSE_LAYERS else 0.0, rel_tol=_TOLERANCE)
        for layer, share in enumerate(pattern)
    )
