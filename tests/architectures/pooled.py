"""Architectures that embed texts, or rank documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from architectures.shapes import NULL, base, layer_types


@dataclass(frozen=True, slots=True)
class Pooled:
    """One architecture whose model yields a vector or a score for a whole text.

    Attributes:
        name: by which it is asked for.
        model: class of transformers.
        settings: of the class's configuration.
        tokenizer: a name of ``pooled_tokenizers.MAKERS``.
        pooling: how the vectors of tokens become one: "mean", "cls" or "last"; "" for a ranker.
        published: keys of config.json as the published checkpoints have them.
    """

    name: str
    model: str
    settings: Mapping[str, Any]
    tokenizer: str
    pooling: str = ""
    published: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ranker(self) -> bool:
        """Whether it scores documents."""
        return not self.pooling


_BERT: Final = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
_ROBERTA: Final = {**_BERT, "max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
_MODERN: Final = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "local_attention": 32,
    "global_attn_every_n_layers": 3,
    "pad_token_id": 0,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MODERN_PUBLISHED: Final = {"layer_norm_eps": 1e-5}
_NOMIC_PUBLISHED: Final = {
    "n_positions": 2048,
    "n_embd": 128,
    "n_inner": 256,
    "n_layer": 3,
    "n_head": 4,
    "rotary_emb_base": 1000,
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0,
    "causal": False,
    "use_rms_norm": False,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": NULL,
    "prenorm": False,
}
_ONE_SCORE: Final = {"num_labels": 1}

POOLED: Final[dict[str, Pooled]] = {
    one.name: one
    for one in (
        Pooled("bert", "BertModel", _BERT, "minilm", "mean"),
        Pooled("bert-short", "BertModel", {**_BERT, "max_position_embeddings": 100}, "minilm", "mean"),
        Pooled(
            "distilbert",
            "DistilBertModel",
            {"dim": 128, "hidden_dim": 256, "n_layers": 3, "n_heads": 4, "pad_token_id": 0},
            "minilm",
            "cls",
        ),
        Pooled("roberta", "RobertaModel", _ROBERTA, "begun-and-ended", "cls"),
        Pooled(
            "nomic-bert",
            "NomicBertModel",
            {**_BERT, "max_position_embeddings": 2048},
            "minilm",
            "mean",
            _NOMIC_PUBLISHED,
        ),
        Pooled("modernbert", "ModernBertModel", _MODERN, "begun-and-ended", "mean", _MODERN_PUBLISHED),
        Pooled("qwen3-embedding", "Qwen3Model", base(head_dim=32), "ended", "last"),
        Pooled(
            "embedding-gemma",
            "Gemma3TextModel",
            base(
                head_dim=32,
                sliding_window=64,
                query_pre_attn_scalar=32,
                use_bidirectional_attention=True,
                num_hidden_layers=7,
                layer_types=layer_types(7, 6),
                rope_parameters={
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                },
            ),
            "sentencepiece-ended",
            "mean",
        ),
        Pooled("bert-ranker", "BertForSequenceClassification", _BERT | _ONE_SCORE, "minilm"),
        Pooled("roberta-ranker", "RobertaForSequenceClassification", _ROBERTA | _ONE_SCORE, "begun-and-ended"),
        Pooled(
            "modernbert-ranker",
            "ModernBertForSequenceClassification",
            _MODERN | _ONE_SCORE | {"classifier_pooling": "mean"},
            "begun-and-ended",
            published=_MODERN_PUBLISHED,
        ),
    )
}
