"""Architectures with mixtures of experts."""

from __future__ import annotations

from typing import Any, Final

from architectures.dense import GEMMA4, GEMMA4_PUBLISHED
from architectures.heads import APPENDED
from architectures.shapes import EXPERTS, LATENT, ROUTED, Architecture, base, layer_types, rope

_SIGMOID: Final = {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}
_HUNYUAN_ROPE: Final = {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0}


def _yarn(**more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "yarn", "beta_fast": 32.0, "beta_slow": 1.0, **more}}


_DEEPSEEK_YARN: Final = _yarn(
    rope_theta=10000.0, factor=4.0, original_max_position_embeddings=512, mscale=1.0, mscale_all_dim=1.0
)
_KIMI_YARN: Final = _yarn(
    rope_theta=50000.0, factor=32.0, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=1.0, beta_fast=1.0
)
_GPT_OSS_YARN: Final = _yarn(rope_theta=150000.0, factor=4.0, original_max_position_embeddings=512, truncate=False)
_DEEPSEEK3: Final = {
    **LATENT,
    **ROUTED,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
}
_GROUPLESS: Final = {"n_group": 1, "topk_group": 1}
_GLM4: Final = {
    **ROUTED,
    **_GROUPLESS,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "use_qk_norm": True,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
}
_GPT_OSS: Final = {
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 64,
    "layer_types": layer_types(4, 2),
    "intermediate_size": 128,
}
_GRANITE: Final = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.1,
    "logits_scaling": 2.0,
}

WITH_EXPERTS: Final = (
    Architecture(
        "qwen2-moe",
        "Qwen2MoeForCausalLM",
        base(EXPERTS, shared_expert_intermediate_size=128, decoder_sparse_step=1),
        "qwen3",
    ),
    Architecture(
        "qwen3-moe",
        "Qwen3MoeForCausalLM",
        base(EXPERTS, head_dim=64, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[]),
    ),
    Architecture(
        "mixtral", "MixtralForCausalLM", base(num_local_experts=4, num_experts_per_tok=2, sliding_window=None)
    ),
    Architecture(
        "llama4",
        "Llama4ForCausalLM",
        base(
            rope(5e5),
            head_dim=32,
            intermediate_size_mlp=256,
            num_local_experts=4,
            num_experts_per_tok=1,
            interleave_moe_layer_step=2,
            attention_chunk_size=8192,
            use_qk_norm=True,
            attn_temperature_tuning=True,
            no_rope_layers=[1, 1, 1, 0],
            floor_scale=8192,
            attn_scale=0.1,
        ),
    ),
    Architecture(
        "gemma4-moe",
        "Gemma4ForCausalLM",
        base(
            GEMMA4,
            num_kv_shared_layers=0,
            hidden_size_per_layer_input=0,
            attention_k_eq_v=True,
            num_global_key_value_heads=1,
            enable_moe_block=True,
            num_experts=8,
            top_k_experts=2,
            moe_intermediate_size=64,
            layer_types=layer_types(4, 4),
        ),
        "gemma3-cut",
        {**GEMMA4_PUBLISHED, "num_global_key_value_heads": 1},
    ),
    Architecture(
        "phimoe",
        "PhimoeForCausalLM",
        base(num_local_experts=4, num_experts_per_tok=2, sliding_window=None, attention_bias=True, lm_head_bias=True),
        published={"original_max_position_embeddings": 2048, "architectures": ["PhiMoEForCausalLM"]},
    ),
    Architecture(
        "deepseek-v2",
        "DeepseekV2ForCausalLM",
        base(
            LATENT,
            ROUTED,
            first_k_dense_replace=1,
            topk_method="greedy",
            n_group=1,
            topk_group=1,
            routed_scaling_factor=1.0,
            norm_topk_prob=False,
        ),
    ),
    Architecture("deepseek-v3", "DeepseekV3ForCausalLM", base(_DEEPSEEK3, _DEEPSEEK_YARN), published=_SIGMOID),
    # As transformers saves it: without what its class has no setting for.
    Architecture("deepseek-v3-saved", "DeepseekV3ForCausalLM", base(_DEEPSEEK3, _DEEPSEEK_YARN)),
    Architecture(
        "deepseek-v3-plain", "DeepseekV3ForCausalLM", base(_DEEPSEEK3, _GROUPLESS), published=_SIGMOID, heads=APPENDED
    ),
    Architecture(
        "deepseek-v3-tokenizer", "DeepseekV3ForCausalLM", base(_DEEPSEEK3, _DEEPSEEK_YARN), "deepseek_v3", _SIGMOID
    ),
    Architecture(
        "kimi-k2",
        "DeepseekV3ForCausalLM",
        base(_DEEPSEEK3, _GROUPLESS, _KIMI_YARN, routed_scaling_factor=2.827),
        published=_SIGMOID,
    ),
    Architecture(
        "deepseek-v3.2",
        "DeepseekV32ForCausalLM",
        base(_DEEPSEEK3, index_n_heads=4, index_head_dim=128, index_topk=256),
        "deepseek_v3",
    ),
    Architecture(
        "glm4-moe",
        "Glm4MoeForCausalLM",
        base(_GLM4, head_dim=32),
        "glm",
        heads=APPENDED,
    ),
    # Quantised again or tuned further, many a checkpoint has lost the head that its configuration declares.
    Architecture(
        "glm4-moe-headless",
        "Glm4MoeForCausalLM",
        base(_GLM4, head_dim=32),
        "glm",
        {"num_nextn_predict_layers": 1},
    ),
    Architecture(
        "glm4-moe-lite",
        "Glm4MoeLiteForCausalLM",
        base(
            LATENT,
            ROUTED,
            _GROUPLESS,
            mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
            routed_scaling_factor=1.5,
            norm_topk_prob=True,
        ),
        "glm",
        {"first_k_dense_replace": 1, **_SIGMOID},
        APPENDED,
    ),
    Architecture(
        "glm5",
        "GlmMoeDsaForCausalLM",
        base(
            LATENT,
            ROUTED,
            _GROUPLESS,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            index_n_heads=4,
            index_head_dim=128,
            index_topk=256,
        ),
        "glm",
    ),
    Architecture("gpt-oss", "GptOssForCausalLM", base(_GPT_OSS, _GPT_OSS_YARN), "gptoss"),
    Architecture("gpt-oss-plain", "GptOssForCausalLM", base(_GPT_OSS, rope(150000.0))),
    # llama.cpp takes as many keys as queries for granted, as OLMoE has.
    Architecture(
        "olmoe",
        "OlmoeForCausalLM",
        base(num_key_value_heads=4, num_experts=8, num_experts_per_tok=2, intermediate_size=64),
    ),
    Architecture(
        "granite-moe",
        "GraniteMoeForCausalLM",
        base(_GRANITE, num_local_experts=8, num_experts_per_tok=2, intermediate_size=64),
    ),
    Architecture(
        "exaone-moe",
        "ExaoneMoeForCausalLM",
        base(
            EXPERTS,
            _GROUPLESS,
            sliding_window=64,
            layer_types=layer_types(4, 4),
            mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
        ),
        published={"scoring_func": "sigmoid", "first_k_dense_replace": 1},
    ),
    Architecture(
        "ernie4.5-moe",
        "Ernie4_5_MoeForCausalLM",
        base(
            moe_num_experts=8,
            moe_k=2,
            moe_intermediate_size=64,
            # The converter takes the width of shared experts for intermediate_size / num_key_value_heads.
            moe_num_shared_experts=2,
            moe_layer_start_index=1,
            moe_layer_interval=1,
            mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
        ),
        "sentencepiece",
    ),
    Architecture(
        "hunyuan-moe",
        "HunYuanMoEV1ForCausalLM",
        base(
            hidden_size=512,
            head_dim=128,
            max_position_embeddings=262144,
            num_experts=4,
            moe_topk=2,
            num_shared_expert=1,
            moe_intermediate_size=64,
            rope_parameters=_HUNYUAN_ROPE,
        ),
        published={"moe_topk": [2] * 4, "moe_intermediate_size": [64] * 4, "num_shared_expert": [1] * 4},
    ),
    Architecture(
        "minimax-m2",
        "MiniMaxM2ForCausalLM",
        base(
            rope(5e6, partial_rotary_factor=0.5),
            head_dim=32,
            num_local_experts=8,
            num_experts_per_tok=2,
            intermediate_size=64,
        ),
        published={"rotary_dim": 16, "scoring_func": "sigmoid"},
    ),
    Architecture(
        "dots1",
        "Dots1ForCausalLM",
        base(
            ROUTED,
            _GROUPLESS,
            num_key_value_heads=4,
            first_k_dense_replace=1,
            routed_scaling_factor=1.5,
            norm_topk_prob=True,
            sliding_window=None,
        ),
        published=_SIGMOID,
    ),
    Architecture("solar-open", "SolarOpenForCausalLM", base(ROUTED, _GROUPLESS, head_dim=32), "solar"),
    Architecture(
        "afmoe",
        "AfmoeForCausalLM",
        base(
            EXPERTS,
            head_dim=32,
            num_shared_experts=1,
            num_dense_layers=1,
            sliding_window=64,
            global_attn_every_n_layers=4,
            layer_types=layer_types(4, 4),
            mup_enabled=True,
            route_scale=2.826,
        ),
        published={"route_norm": True},
    ),
    Architecture("hy-v3", "HYV3ForCausalLM", base(EXPERTS, head_dim=32)),
)
