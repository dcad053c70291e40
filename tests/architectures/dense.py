"""Architectures with attention and one feed-forward a layer."""

from __future__ import annotations

from typing import Any, Final

from architectures.shapes import VOCABULARY, Architecture, base, layer_types, rope

_GEMMA4_ROPE: Final = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
}
GEMMA4: Final[dict[str, Any]] = {
    "head_dim": 32,
    "global_head_dim": 64,
    "sliding_window": 64,
    "tie_word_embeddings": True,
    "final_logit_softcapping": 30.0,
    "rope_parameters": _GEMMA4_ROPE,
}
GEMMA4_E: Final = {
    "num_hidden_layers": 8,
    "num_kv_shared_layers": 4,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": VOCABULARY,
    "layer_types": layer_types(8, 4),
}
# What transformers 5.24 writes another way than the checkpoints that are published.
GEMMA4_PUBLISHED: Final = {"global_head_dim": 64, "per_layer_config": None}

_YARN: Final = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 512}
_HUNYUAN_ROPE: Final = {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0}

DENSE: Final = (
    Architecture("qwen3", "Qwen3ForCausalLM", base(rope(1e6), head_dim=64), "qwen3"),
    Architecture("qwen3-tied", "Qwen3ForCausalLM", base(rope(1e6), head_dim=64, tie_word_embeddings=True)),
    Architecture("qwen2", "Qwen2ForCausalLM", base(rope(1e6)), "qwen3"),
    Architecture("qwen2-yarn", "Qwen2ForCausalLM", base(rope_parameters=_YARN), "qwen3"),
    Architecture("llama2", "LlamaForCausalLM", base(), "sentencepiece"),
    Architecture(
        "llama3",
        "LlamaForCausalLM",
        base(
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256,
            }
        ),
        "llama3_1",
    ),
    Architecture("mistral", "MistralForCausalLM", base(head_dim=64, sliding_window=None)),
    Architecture("mistral-window", "MistralForCausalLM", base(head_dim=32, sliding_window=64)),
    Architecture(
        "ministral3",
        "Ministral3ForCausalLM",
        base(
            head_dim=32,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 16.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        ),
    ),
    Architecture(
        "gemma",
        "GemmaForCausalLM",
        base(head_dim=64, tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh"),
        "sentencepiece-plain",
    ),
    Architecture(
        "gemma2",
        "Gemma2ForCausalLM",
        base(
            head_dim=32,
            sliding_window=64,
            query_pre_attn_scalar=32,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
            tie_word_embeddings=True,
            layer_types=layer_types(4, 2),
        ),
        "sentencepiece-plain",
    ),
    Architecture(
        "gemma3",
        "Gemma3ForCausalLM",
        base(
            num_hidden_layers=7,
            head_dim=64,
            sliding_window=64,
            query_pre_attn_scalar=64,
            tie_word_embeddings=True,
            layer_types=layer_types(7, 6),
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            },
        ),
        "sentencepiece-plain",
    ),
    Architecture(
        "gemma3n",
        "Gemma3nForCausalLM",
        # llama.cpp has two numbers of the published models in its source: the first 20 layers have keys and values of
        # their own, and the first 10 sparse activations.
        base(
            num_hidden_layers=25,
            head_dim=32,
            sliding_window=64,
            tie_word_embeddings=True,
            layer_types=layer_types(25, 5),
            num_kv_shared_layers=5,
            hidden_size_per_layer_input=256,
            vocab_size_per_layer_input=VOCABULARY,
            altup_num_inputs=4,
            altup_active_idx=0,
            laurel_rank=64,
            # llama.cpp estimates the deviation of sparse activations with n - 1, transformers with n. That is visible
            # for 256 of them, and not for the 8,192 and 16,384 of the published models.
            intermediate_size=[1024] * 25,
            activation_sparsity_pattern=[0.95] * 10 + [0.0] * 15,
            final_logit_softcapping=30.0,
        ),
        "sentencepiece-plain",
    ),
    Architecture("gemma4-e", "Gemma4ForCausalLM", base(GEMMA4, GEMMA4_E), "gemma3-cut", GEMMA4_PUBLISHED),
    Architecture(
        "gemma4-dense",
        "Gemma4ForCausalLM",
        base(
            GEMMA4,
            num_kv_shared_layers=0,
            hidden_size_per_layer_input=0,
            attention_k_eq_v=True,
            num_global_key_value_heads=1,
            layer_types=layer_types(4, 4),
        ),
        "gemma3-cut",
        {**GEMMA4_PUBLISHED, "num_global_key_value_heads": 1},
    ),
    Architecture(
        "phi2", "PhiForCausalLM", base(num_key_value_heads=4, intermediate_size=512, partial_rotary_factor=0.5)
    ),
    # Not "phi3": llama.cpp expects certain tokens of a vocabulary whose model has that in its name.
    Architecture(
        "phi-mini",
        "Phi3ForCausalLM",
        base(sliding_window=None, original_max_position_embeddings=2048),
        "sentencepiece",
    ),
    Architecture(
        "phi-mini-window",
        "Phi3ForCausalLM",
        base(sliding_window=64, original_max_position_embeddings=2048),
        "sentencepiece",
    ),
    Architecture(
        "phi-mini-longrope",
        "Phi3ForCausalLM",
        base(
            sliding_window=None,
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "short_factor": [1.0 + 0.05 * i for i in range(16)],
                "long_factor": [1.0 + 0.5 * i for i in range(16)],
            },
        ),
        "sentencepiece",
    ),
    Architecture(
        "phi4-mini",
        "Phi3ForCausalLM",
        base(
            sliding_window=None,
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "factor": 32.0,
                "partial_rotary_factor": 0.75,
                "original_max_position_embeddings": 4096,
                "short_factor": [1.0] * 12,
                "long_factor": [1.0 + 0.5 * i for i in range(12)],
            },
        ),
    ),
    Architecture("glm", "GlmForCausalLM", base(head_dim=32, partial_rotary_factor=0.5, attention_bias=True), "glm"),
    Architecture("glm4", "Glm4ForCausalLM", base(head_dim=32, partial_rotary_factor=0.5, attention_bias=True), "glm"),
    Architecture("olmo", "OlmoForCausalLM", base(num_key_value_heads=4, clip_qkv=None)),
    Architecture("olmo2", "Olmo2ForCausalLM", base()),
    Architecture("olmo3", "Olmo3ForCausalLM", base(sliding_window=64, layer_types=layer_types(4, 4))),
    Architecture(
        "granite",
        "GraniteForCausalLM",
        base(embedding_multiplier=12.0, residual_multiplier=0.5, attention_multiplier=0.1, logits_scaling=2.0),
    ),
    Architecture("smollm3", "SmolLM3ForCausalLM", base(no_rope_layers=[1, 1, 1, 0], use_sliding_window=False)),
    Architecture("cohere", "CohereForCausalLM", base(logit_scale=0.5, use_qk_norm=False, tie_word_embeddings=True)),
    Architecture(
        "cohere2",
        "Cohere2ForCausalLM",
        base(head_dim=32, logit_scale=0.5, sliding_window=64, layer_types=layer_types(4, 4), tie_word_embeddings=True),
        published={"rotary_pct": 1.0},
    ),
    Architecture("starcoder2", "Starcoder2ForCausalLM", base(use_bias=True, sliding_window=None)),
    Architecture(
        "exaone4-window",
        "Exaone4ForCausalLM",
        # llama.cpp knows the model with windows, of 32 billion weights, by its 64 layers.
        base(
            num_hidden_layers=64,
            hidden_size=64,
            intermediate_size=64,
            sliding_window=64,
            sliding_window_pattern=4,
            layer_types=layer_types(64, 4),
        ),
    ),
    Architecture(
        "exaone4",
        "Exaone4ForCausalLM",
        base(sliding_window=None, sliding_window_pattern=None, layer_types=["full_attention"] * 4),
    ),
    Architecture("ernie4.5", "Ernie4_5ForCausalLM", base(head_dim=32, use_bias=False), "sentencepiece"),
    Architecture(
        "hunyuan",
        "HunYuanDenseV1ForCausalLM",
        base(head_dim=128, max_position_embeddings=262144, rope_parameters=_HUNYUAN_ROPE),
    ),
    Architecture("seed-oss", "SeedOssForCausalLM", base(head_dim=64, attention_bias=True, attention_out_bias=False)),
    Architecture("apertus", "ApertusForCausalLM", base()),
    Architecture("arcee", "ArceeForCausalLM", base(head_dim=32)),
    Architecture("stablelm", "StableLmForCausalLM", base(partial_rotary_factor=0.25, use_qkv_bias=True)),
    Architecture("nemotron", "NemotronForCausalLM", base(head_dim=32, partial_rotary_factor=0.5), "sentencepiece"),
    Architecture("bitnet", "BitNetForCausalLM", base(tie_word_embeddings=True)),
    Architecture(
        "minicpm3",
        "MiniCPM3ForCausalLM",
        base(
            num_key_value_heads=4,
            q_lora_rank=64,
            kv_lora_rank=64,
            qk_nope_head_dim=32,
            qk_rope_head_dim=16,
            v_head_dim=32,
        ),
        "sentencepiece",
    ),
    Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        {
            "n_embd": 128,
            "n_layer": 4,
            "n_head": 4,
            "n_positions": 1024,
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": True,
        },
        published={"n_ctx": 1024},
    ),
    Architecture(
        "gpt-neox",
        "GPTNeoXForCausalLM",
        base(rotary_pct=0.25, use_parallel_residual=True),
        published={"rotary_pct": 0.25},
    ),
    Architecture(
        "falcon",
        "FalconForCausalLM",
        {
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "new_decoder_architecture": True,
            "bias": False,
            "parallel_attn": True,
            "alibi": False,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": None,
        },
    ),
    Architecture(
        "bloom",
        "BloomForCausalLM",
        {
            "hidden_size": 128,
            "n_layer": 4,
            "n_head": 4,
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": True,
        },
    ),
    Architecture(
        "mpt",
        "MptForCausalLM",
        {
            "d_model": 128,
            "n_layers": 4,
            "n_heads": 4,
            "max_seq_len": 2048,
            "tie_word_embeddings": True,
        },
    ),
    Architecture(
        "t5",
        "T5ForConditionalGeneration",
        {
            "d_model": 128,
            "d_kv": 32,
            "d_ff": 256,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        "sentencepiece",
        {"decoder_start_token_id": 0},
    ),
)
