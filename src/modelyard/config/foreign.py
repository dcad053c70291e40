"""Keys of other tools that Modelyard does not have, and what to write in their place."""

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
    **dict.fromkeys(
        (("models", name) for name in ("control_vector", "control_vector_scaled", "control_vectors")),
        "Write [[models.adapters]] with name, path and scale, and applied = true to have it always.",
    ),
    ("models", "control_vector_layer_range"): "Write layers in [[models.adapters]].",
    ("models", "adapter"): "Write [[models.adapters]] with name and path, a table for each adapter.",
    ("runtime", "max_num_batched_tokens"): "Write batch_tokens.",
    ("runtime", "no_kv_cache"): "Remove it: there is no generation without a KV cache.",
    ("runtime", "mtp"): "Remove it: draft in [[models]] names a smaller model that drafts tokens.",
    ("paged_attn",): "Remove it: the KV cache of a model is as long as its max_seq_len, and [memory] budget bounds "
    "what all models take.",
    ("global",): "Write token_source in [hub], and seed in [models.sampling].",
    ("sandbox",): "Remove it: Modelyard runs no programs of models.",
    ("model",): "Write [[models]], once for each model, in double brackets.",
    ("speculative",): "Write draft in a [[models]] table: the id of a smaller model that drafts tokens.",
}
"""Path of the key -> what to do. Source: the configuration schema of mistral.rs."""

_DEVICE: Final = ("models", "device")
_SAMPLING: Final = ("models", "sampling")

_RENAMED: Final[Mapping[tuple[str, ...], str]] = {
    ("models", "model_id"): "model model_path path file filename gguf gguf_file model_file from repo repo_id hf hfr "
    "hf_repo hf_model model_url url source name_or_path checkpoint weights",
    ("models", "alias"): "name id served_model_name model_name model_alias",
    (
        "models",
        "idle_unload_seconds",
    ): "ttl keep_alive idle_timeout idle_timeout_seconds sleep_idle_seconds unload_after",
    ("models", "load"): "preload autoload load_on_startup lazy lazy_load on_demand",
    ("models", "draft"): "draft_model model_draft md hf_repo_draft speculative_model",
    ("models", "chat_template"): "chat_template_file template jinja",
    (*_DEVICE, "max_seq_len"): "ctx ctx_size n_ctx num_ctx context context_length context_size context_window c "
    "max_model_len max_context max_context_length max_position_embeddings pa_context_len",
    (*_DEVICE, "n_gpu_layers"): "gpu_layers ngl num_gpu num_gpu_layers gpu",
    (*_DEVICE, "devices"): "device dev gpu_ids cuda_visible_devices",
    (*_DEVICE, "n_cpu_moe"): "ncmoe cpu_moe cmoe",
    (*_DEVICE, "tensor_overrides"): "override_tensor override_tensors ot tensor_buft_overrides",
    (*_DEVICE, "split_mode"): "sm",
    (*_DEVICE, "tensor_split"): "ts",
    (*_DEVICE, "main_gpu"): "mg main_device",
    (*_DEVICE, "kv_on_host"): "no_kv_offload nkvo low_vram",
    (*_DEVICE, "mlock"): "use_mlock",
    (*_DEVICE, "mmap"): "use_mmap no_mmap",
    (*_DEVICE, "max_batch_size"): "parallel n_parallel np num_parallel max_parallel slots concurrency_limit",
    ("runtime", "batch_tokens"): "batch batch_size ubatch_size n_batch num_batch n_ubatch b ub",
    ("runtime", "kv_type"): "cache_type_k cache_type_v ctk ctv kv_cache_type kv_cache_dtype type_k type_v",
    ("runtime", "flash_attn"): "fa flash_attention",
    ("runtime", "max_seqs"): "max_num_seqs max_concurrent_requests",
    ("memory", "budget"): "max_memory memory_limit memory_fraction memory_mb",
    ("memory", "devices"): "gpu_memory_utilization gpu_memory vram max_vram mem_fraction_static pa_gpu_mem "
    "pa_gpu_mem_usage",
    ("models", "format", "mmproj"): "mm mmproj_file projector clip_model_path",
    ("models", "format", "quantized_file"): "hf_file hff",
    ("models", "quantization", "quant"): "quantize quantization_type ftype tag",
    (*_SAMPLING, "temperature"): "temp",
    (*_SAMPLING, "repetition_penalty"): "repeat_penalty",
    ("server", "host"): "listen bind bind_address listen_address hostname ip",
    ("server", "api_keys"): "api_key_file auth_token bearer_token",
    ("server", "ssl_certfile"): "ssl_cert_file tls_cert cert certfile",
    ("server", "ssl_keyfile"): "ssl_key_file tls_key",
    ("server", "cors_origins"): "cors allowed_origins origins",
    ("default_model_id",): "default default_model",
    ("hub", "token_source"): "hf_token hft hub_token",
}
# Source: llama.cpp, common/arg.cpp and tools/server/README.md (presets); Ollama, docs/modelfile.md; llama-swap,
# config.example.yaml; vLLM's engine arguments.

_REMOVED: Final[Mapping[str, str]] = {
    "threads t num_thread n_threads threads_batch threads_http": (
        "Remove it: models divide the cores, of which taskset can leave them fewer."
    ),
    "numa": "Remove it: the system places memory near the cores that use it first.",
    "cmd command cmd_stop proxy check_endpoint": "Remove it: Modelyard starts no other programs. Name the model's file "
    "in model_id, and write what the command's options say as keys.",
    "system system_prompt": "Remove it: each request carries its system message.",
    "lora adapters lora_path lora_scaled lora_base": "Adapters are not supported: merge them into the weights.",
    "n_predict num_predict max_new_tokens": "Remove it: max_tokens of a request bounds its answer, and max_tokens in "
    "[[server.keys]] those of a key.",
    "embedding embeddings": 'Write kind = "embedding" in [[models]].',
    "rerank reranking": 'Write kind = "rerank" in [[models]].',
    "stop stop_sequences": "Remove it: requests carry stop, and a model's own end is in its file.",
    "parameters parameter params options": "Write sampling defaults in [models.sampling], and the context's length as "
    "max_seq_len in [models.device].",
    "license messages": "Remove it: Modelyard has no use for it.",
    "cont_batching cb": "Remove it: requests are always computed together.",
}

OTHER_TOOLS: Final[Mapping[str, tuple[str, ...] | str]] = {
    **{name: path for path, names in _RENAMED.items() for name in names.split()},
    **{name: advice for names, advice in _REMOVED.items() for name in names.split()},
}
"""Name of a key, in small letters and with underscores -> the path of Modelyard's key, or what to do instead."""


def other_tools_key(key: str) -> tuple[str, ...] | str | None:
    """Return what stands for a key of another tool here: the path of a key, or advice; None for an unknown key."""
    return OTHER_TOOLS.get(key.strip().lstrip("-").lower().replace("-", "_"))
