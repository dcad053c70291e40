"""What a row of the tables of architectures says, and the settings that most rows share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Stands for the size of the tokenizer's vocabulary in settings.
VOCABULARY: Final = "VOCABULARY"

# Stands for null in what published configurations have.
NULL: Final = "NULL"


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture in the small.

    Attributes:
        name: by which it is asked for.
        model: class of transformers.
        settings: of the class's configuration, in the proportions of published models.
        tokenizer: a name of ``tokenizers.MAKERS``.
        published: keys of config.json as the published checkpoints have them, where transformers writes others; None
            removes a key.
        heads: prediction heads (MTP) of published checkpoints, which transformers does not write: a kind of
            ``heads.py``.
    """

    name: str
    model: str
    settings: Mapping[str, Any]
    tokenizer: str = "smollm2"
    published: Mapping[str, Any] = field(default_factory=dict)
    heads: str | None = None


BASE: Final[Mapping[str, Any]] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

EXPERTS: Final[Mapping[str, Any]] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}

# Latent attention and experts of DeepSeek's kind.
LATENT: Final[Mapping[str, Any]] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}
ROUTED: Final[Mapping[str, Any]] = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
}


def base(*more: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """The settings that most architectures share, with others on top."""
    merged = dict(BASE)
    for part in more:
        merged |= part
    return merged | settings


def rope(theta: float = 10000.0, **more: Any) -> dict[str, Any]:
    """The setting of rotary positions."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}


def layer_types(count: int, every: int, others: str = "sliding_attention") -> list[str]:
    """Full attention in each ``every``-th layer, ``others`` in the rest."""
    return ["full_attention" if (layer + 1) % every == 0 else others for layer in range(count)]
