"""Keys of mistral.rs that Modelyard does not have, and what to write in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FOREIGN: Final[Mapping[tuple[str, ...], str]] = {
    ("models", "format", "tok_model_id"): "Remove it: a GGUF file holds its tokenizer, and safetensors have theirs "
    "beside them.",
    ("models", "format", "gqa"): "Remove it: a GGUF file says how its attention heads are grouped.",
    ("models", "quantization", "in_situ_quant"): "Write isq.",
    ("models", "quantization", "isq_organization"): "Remove it: llama.cpp chooses the type of each tensor.",
    ("models", "quantization", "calibration_file"): "Make an importance matrix of it with llama-imatrix, and name "
    "that in imatrix.",
    ("models", "device", "topology"): "Remove it: device_layers says how many layers each device computes.",
    ("models", "device", "hf_cache"): "Set HF_HUB_CACHE in the environment: the cache is that of all models.",
    ("models", "tokenizer"): "Remove it: the tokenizer is the model's own.",
    ("models", "arch"): "Remove it: the model's files say it.",
    ("models", "jinja_explicit"): "Write chat_template.",
    ("models", "adapter"): "Adapters are not supported: merge them into the weights.",
    ("runtime", "max_num_batched_tokens"): "Write batch_tokens.",
    ("runtime", "no_kv_cache"): "Remove it: there is no generation without a KV cache.",
    ("paged_attn",): "Remove it: the KV cache of a model is as long as its max_seq_len, and [memory] budget bounds "
    "what all models take.",
}
"""Path of the key -> what to do. Source: the configuration schema of mistral.rs."""
