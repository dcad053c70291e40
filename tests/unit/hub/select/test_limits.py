"""Warnings about models that llama.cpp computes differently, from a GGUF header or a config.json."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import GgufHeader, GgufTensor
from modelyard.hub.select.limits import (
    OTHER_KV_LAYERS,
    PICTURES_DISORDERED,
    RANGE_ROUNDED,
    SPARSE_MIXING,
    check_checkpoint,
    checkpoint_limits,
    factors_by_context,
    header_limits,
    window_ignored,
)

CONTEXT = 32768


def header(architecture: str, *tensors: str, **facts: Any) -> GgufHeader:
    """A model trained on CONTEXT tokens; in ``facts``, two underscores stand for a dot."""
    named = {f"{architecture}.{key.replace('__', '.')}": value for key, value in facts.items()}
    metadata = {"general.architecture": architecture, f"{architecture}.context_length": CONTEXT} | named
    return GgufHeader(3, metadata, tuple(GgufTensor(name, (8,), "F32", 0, 32) for name in tensors), 0)


@pytest.mark.parametrize(
    ("model", "limits"),
    [
        (header("phi3", attention__sliding_window=2047), [window_ignored(2047)]),
        (header("phi3", attention__sliding_window=0), []),
        (header("phi3", attention__sliding_window=CONTEXT), []),
        (header("exaone4", block_count=30, attention__sliding_window=4096), [window_ignored(4096)]),
        (header("exaone4", block_count=64, attention__sliding_window=4096), []),
        (header("gemma3", attention__sliding_window=512), []),
        (
            header("phi3", "rope_factors_long.weight", rope__scaling__original_context_length=4096),
            [factors_by_context(4096)],
        ),
        (header("phi3", "rope_factors_long.weight", rope__scaling__original_context_length=CONTEXT), []),
        (header("llama", "rope_freqs.weight", rope__scaling__original_context_length=4096), []),
        (header("gpt-oss", rope__scaling__type="yarn"), [RANGE_ROUNDED]),
        (header("gpt-oss"), []),
        (header("deepseek2", rope__scaling__type="yarn"), []),
        (header("phimoe"), [SPARSE_MIXING]),
        (header("gemma3n", block_count=30, attention__shared_kv_layers=10), []),
        (header("gemma3n", block_count=35, attention__shared_kv_layers=15), []),
        (header("gemma3n", block_count=26, attention__shared_kv_layers=11), [OTHER_KV_LAYERS]),
        (header("gemma3n", block_count=30), []),
        (header("gemma4", block_count=26, attention__shared_kv_layers=11), []),
    ],
)
def test_a_file_tells_what_llama_cpp_computes_otherwise(model: GgufHeader, limits: list[str]) -> None:
    assert list(header_limits(model)) == limits


def config(architecture: str, **facts: Any) -> dict[str, Any]:
    return {"architectures": [architecture], "max_position_embeddings": CONTEXT, "num_hidden_layers": 32, **facts}


LONG = {"rope_type": "longrope", "long_factor": [1.0, 2.0], "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("checkpoint", "limits"),
    [
        (config("MistralForCausalLM", sliding_window=4096), [window_ignored(4096)]),
        (config("MistralForCausalLM", sliding_window=None), []),
        (config("MistralForCausalLM"), []),
        (config("Starcoder2ForCausalLM", sliding_window=4096), [window_ignored(4096)]),
        (config("Gemma3ForCausalLM", sliding_window=512), []),
        (config("Qwen2ForCausalLM", sliding_window=4096), []),
        (config("Qwen2ForCausalLM", sliding_window=4096, use_sliding_window=False), []),
        (config("Qwen2ForCausalLM", sliding_window=4096, use_sliding_window=True), [window_ignored(4096)]),
        (config("MistralForCausalLM", sliding_window=4096, layer_types=["full_attention"]), []),
        (config("Exaone4ForCausalLM", sliding_window=4096), [window_ignored(4096)]),
        (config("Exaone4ForCausalLM", sliding_window=4096, num_hidden_layers=64), []),
        (config("Phi3ForCausalLM", rope_parameters=LONG), [factors_by_context(4096)]),
        (
            config("Phi3ForCausalLM", original_max_position_embeddings=4096, rope_scaling={"long_factor": [1.0]}),
            [factors_by_context(4096)],
        ),
        (config("GptOssForCausalLM", rope_scaling={"rope_type": "yarn", "truncate": False}), [RANGE_ROUNDED]),
        (config("GptOssForCausalLM", rope_scaling={"type": "yarn", "truncate": False}), [RANGE_ROUNDED]),
        (config("Qwen2ForCausalLM", rope_scaling={"type": "yarn"}), []),
        (config("PhiMoEForCausalLM"), [SPARSE_MIXING]),
        (config("Llama4ForConditionalGeneration", vision_config={"image_size": 336}), [PICTURES_DISORDERED]),
        (config("Llama4ForConditionalGeneration"), []),
        ({"architectures": ["LlavaForConditionalGeneration"], "text_config": {"sliding_window": 64}}, []),
        ({}, []),
    ],
)
def test_a_checkpoint_tells_what_llama_cpp_will_compute_otherwise(
    checkpoint: dict[str, Any], limits: list[str]
) -> None:
    assert list(checkpoint_limits(checkpoint)) == limits


def test_a_checkpoint_whose_embeddings_would_be_scaled_is_refused() -> None:
    check_checkpoint(config("AfmoeForCausalLM", mup_enabled=True))
    check_checkpoint(config("LlamaForCausalLM"))
    with pytest.raises(UnusableModel, match="mup_enabled"):
        check_checkpoint(config("AfmoeForCausalLM"))


def gemma_3n(layers: int, shared: int, **facts: Any) -> dict[str, Any]:
    """The settings that the published Gemma 3n models share, with those of E4B's width."""
    text = {
        "num_hidden_layers": layers,
        "num_kv_shared_layers": shared,
        "activation_sparsity_pattern": ([0.95] * 10 + [0.0] * layers)[:layers],
        "intermediate_size": [16384] * layers,
        "altup_active_idx": 0,
        "altup_correct_scale": True,
        "altup_num_inputs": 4,
        "hidden_size_per_layer_input": 256,
        "laurel_rank": 64,
    }
    return {"architectures": ["Gemma3nForConditionalGeneration"], "text_config": {**text, **facts}}


@pytest.mark.parametrize(
    "checkpoint",
    [
        gemma_3n(30, 10, intermediate_size=[8192] * 30),
        gemma_3n(35, 15),
        gemma_3n(30, 10, intermediate_size=8192, activation_sparsity_pattern=None),
        gemma_3n(30, 10, num_hidden_layers=None),
        gemma_3n(30, 10, activation_sparsity_pattern=[0.949999988079071] * 10 + [0.0] * 20),
        gemma_3n(16, 0),
        {"architectures": ["Gemma3nForCausalLM"]},
        {"architectures": ["Gemma3ForCausalLM"], "num_kv_shared_layers": 3},
    ],
)
def test_a_gemma_3n_of_published_proportions_is_served(checkpoint: dict[str, Any]) -> None:
    check_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("checkpoint", "key"),
    [
        (gemma_3n(26, 11), "num_kv_shared_layers"),
        (gemma_3n(26, 0), "num_kv_shared_layers"),
        (gemma_3n(30, 10, activation_sparsity_pattern=[0.0] * 30), "activation_sparsity_pattern"),
        (gemma_3n(30, 10, activation_sparsity_pattern=[0.95] * 9 + [0.0] * 21), "activation_sparsity_pattern"),
        (gemma_3n(30, 10, intermediate_size=[16384] * 20 + [8192] * 10), "intermediate_size"),
        (gemma_3n(30, 10, altup_active_idx=1), "altup_active_idx"),
        (gemma_3n(30, 10, laurel_rank=32), "laurel_rank"),
    ],
)
def test_a_gemma_3n_that_llama_cpp_would_compute_wrongly_is_refused(checkpoint: dict[str, Any], key: str) -> None:
    with pytest.raises(UnusableModel, match=f"E2B and E4B.*'{key}' in its config.json"):
        check_checkpoint(checkpoint)
