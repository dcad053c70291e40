"""Architectures with recurrent layers, alone or beside attention."""

from __future__ import annotations

from typing import Final

from architectures.heads import APART, APART_AND_COUNTED
from architectures.shapes import EXPERTS, LATENT, Architecture, base, layer_types

LINEAR: Final = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "layer_types": layer_types(4, 4, "linear_attention"),
}
SECTIONED: Final = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "partial_rotary_factor": 0.25,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    }
}
_MAMBA: Final = {
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
_ONLY_STATES: Final = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "conv_kernel": 4,
    "expand": 2,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_HYBRID_TYPES: Final = ["mamba", "mamba", "attention", "mamba"]
_CONV_TYPES: Final = ["conv", "conv", "full_attention", "conv"]

RECURRENT: Final = (
    Architecture(
        "qwen3-next",
        "Qwen3NextForCausalLM",
        base(
            EXPERTS,
            LINEAR,
            head_dim=64,
            shared_expert_intermediate_size=64,
            partial_rotary_factor=0.25,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
        heads=APART,
    ),
    Architecture("qwen3.5-headless", "Qwen3_5ForCausalLM", base(LINEAR, SECTIONED, head_dim=64)),
    Architecture("qwen3.5", "Qwen3_5ForCausalLM", base(LINEAR, SECTIONED, head_dim=64), heads=APART_AND_COUNTED),
    Architecture(
        "qwen3.5-moe",
        "Qwen3_5MoeForCausalLM",
        base(EXPERTS, LINEAR, SECTIONED, head_dim=64, shared_expert_intermediate_size=64),
        "qwen3",
        heads=APART_AND_COUNTED,
    ),
    Architecture(
        "granite-hybrid",
        "GraniteMoeHybridForCausalLM",
        base(
            _MAMBA,
            embedding_multiplier=12.0,
            residual_multiplier=0.5,
            attention_multiplier=0.1,
            logits_scaling=2.0,
            num_local_experts=8,
            num_experts_per_tok=2,
            intermediate_size=64,
            shared_intermediate_size=128,
            layer_types=_HYBRID_TYPES,
            position_embedding_type="nope",
        ),
        published={"layer_types": _HYBRID_TYPES},
    ),
    Architecture(
        "falcon-h1",
        "FalconH1ForCausalLM",
        base(
            _MAMBA,
            head_dim=32,
            mamba_d_ssm=128,
            mamba_n_heads=4,
            mamba_rms_norm=False,
            embedding_multiplier=5.0,
            lm_head_multiplier=0.5,
            key_multiplier=0.5,
            attention_out_multiplier=0.8,
            attention_in_multiplier=1.0,
            ssm_in_multiplier=1.2,
            ssm_out_multiplier=0.7,
            mlp_multipliers=[0.9, 0.6],
            ssm_multipliers=[0.9, 0.8, 0.7, 1.1, 1.2],
        ),
    ),
    Architecture("mamba", "MambaForCausalLM", {**_ONLY_STATES, "state_size": 16, "time_step_rank": 8}),
    Architecture(
        "mamba2",
        "Mamba2ForCausalLM",
        {**_ONLY_STATES, "state_size": 32, "head_dim": 32, "num_heads": 8, "n_groups": 1, "chunk_size": 64},
    ),
    Architecture("falcon-mamba", "FalconMambaForCausalLM", {**_ONLY_STATES, "state_size": 16, "time_step_rank": 8}),
    Architecture("bamba", "BambaForCausalLM", base(_MAMBA, attn_layer_indices=[2]), published={"attn_rotary_emb": 16}),
    Architecture(
        "jamba",
        "JambaForCausalLM",
        base(
            attn_layer_offset=2,
            attn_layer_period=4,
            expert_layer_offset=1,
            expert_layer_period=2,
            num_experts=4,
            num_experts_per_tok=2,
            mamba_d_state=16,
            mamba_d_conv=4,
            mamba_expand=2,
            mamba_dt_rank=8,
            use_mamba_kernels=False,
        ),
        "sentencepiece",
    ),
    Architecture(
        "nemotron-h",
        "NemotronHForCausalLM",
        base(
            head_dim=32,
            layers_block_type=["mamba", "moe", "attention", "moe"],
            mamba_num_heads=8,
            mamba_head_dim=32,
            n_groups=1,
            ssm_state_size=16,
            conv_kernel=4,
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=64,
            moe_shared_expert_intermediate_size=64,
            n_group=1,
            topk_group=1,
        ),
        published={"num_hidden_layers": 4, "hybrid_override_pattern": "ME*E"},
    ),
    Architecture(
        "lfm2",
        "Lfm2ForCausalLM",
        base(
            tie_word_embeddings=True,
            layer_types=_CONV_TYPES,
            conv_L_cache=3,
            block_auto_adjust_ff_dim=False,
            block_multiple_of=64,
            block_ff_dim=256,
        ),
    ),
    Architecture(
        "lfm2-moe",
        "Lfm2MoeForCausalLM",
        base(
            EXPERTS,
            tie_word_embeddings=True,
            layer_types=_CONV_TYPES,
            conv_L_cache=3,
            num_dense_layers=1,
            use_expert_bias=True,
        ),
    ),
    Architecture(
        "kimi-linear",
        "KimiLinearForCausalLM",
        base(
            LATENT,
            q_lora_rank=None,
            linear_num_heads=4,
            linear_head_dim=32,
            num_experts=8,
            num_experts_per_token=2,
            moe_intermediate_size=64,
        ),
    ),
)
