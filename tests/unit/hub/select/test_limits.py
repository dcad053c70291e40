"""Warnings about models that llama.cpp computes differently, from a GGUF header or a config.json."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import GgufHeader, GgufTensor
from modelyard.hub.select.limits import (
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
