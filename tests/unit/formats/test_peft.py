"""Which adapters of PEFT are refused before they are converted, with a line that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import UnusableModel
from modelyard.formats.peft import CONFIG, WEIGHTS, read_peft, scalings
from support.peft_adapters import write_peft

QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


def test_an_adapter_is_read_without_its_numbers(tmp_path: Path) -> None:
    adapter = read_peft(write_peft(tmp_path, base="org/base", revision="v1", rank=8))
    assert (adapter.base, adapter.revision) == ("org/base", "v1")
    assert {module.removeprefix(QUERY[:-6]) for module in adapter.modules} == {"q_proj", "v_proj"}
    assert adapter.size_bytes == 4 * 8 * (32 + 32 + 32 + 16)
    assert adapter.width == 32


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"q_proj": 8 / 4, "up_proj": 8 / 4}),
        ({"use_rslora": True, "rank_pattern": {"up_proj": 16}}, {"q_proj": 8 / 2, "up_proj": 8 / 4}),
        ({"alpha_pattern": {"proj": 1, "mlp.up_proj": 3, "up_proj": 5}}, {"q_proj": 8 / 4, "up_proj": 3 / 4}),
        ({"alpha_pattern": {".*q_proj": 2}}, {"q_proj": 2 / 4, "up_proj": 8 / 4}),
    ],
)
def test_each_module_has_its_own_factor(tmp_path: Path, config: dict[str, Any], expected: dict[str, float]) -> None:
    adapter = read_peft(write_peft(tmp_path, targets=("self_attn.q_proj", "mlp.up_proj"), **config))
    alpha, factors = scalings(adapter)
    assert alpha == 8
    assert {module.rpartition(".")[2]: factor for module, factor in factors.items()} == expected


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"peft_type": "IA3"}, "'peft_type' is 'IA3'"),
        ({"peft_type": None}, "'peft_type' is None"),
        ({"use_dora": True}, "has DoRA"),
        ({"modules_to_save": ["lm_head"]}, r"replaces whole modules \('modules_to_save': \[\"lm_head\"\]\)"),
        ({"bias": "lora_only"}, "has biases"),
        ({"lora_bias": True}, "has biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "began with 'pissa_niter_4'"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"lora_alpha": "8"}, "The alpha 'lora_alpha' is \"8\""),
        ({"lora_alpha": 0}, "adds nothing"),
        ({"alpha_pattern": {"q_proj": None}}, "The alpha 'q_proj' is null"),
        ({"alpha_pattern": {"(": 1}}, "no regular expression"),
        ({"alpha_pattern": [1]}, "'alpha_pattern' is not an object"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    write_peft(tmp_path, **config)
    with pytest.raises(UnusableModel, match=problem):
        read_peft(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        (
            {"base_model.model.lm_head.weight": np.ones((4, 4))},
            "'base_model.model.lm_head.weight' is no matrix of LoRA",
        ),
        ({f"{QUERY}.lora_magnitude_vector": np.ones(4)}, "is no matrix of LoRA"),
        ({f"{QUERY}.lora_A.weight": np.ones((2, 32), np.float32)}, "whose ranks differ"),
        ({f"{QUERY}.lora_A.weight": np.ones((4, 32, 3, 3), np.float32)}, "must be a matrix"),
        ({f"{QUERY}.lora_A.weight": np.ones((4, 32), np.int8)}, "has the type I8"),
        ({f"{QUERY}2.lora_A.weight": np.ones((4, 32), np.float32)}, "only one of the two matrices"),
    ],
)
def test_tensors_that_are_no_pairs_of_matrices_are_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], problem: str
) -> None:
    write_peft(tmp_path, tensors=tensors)
    with pytest.raises(UnusableModel, match=problem):
        read_peft(tmp_path)


def test_a_copy_of_the_base_weights_beside_an_embedding_is_left_out(tmp_path: Path) -> None:
    copy = {"base_model.model.model.embed_tokens.base_layer.weight": np.ones((4, 4), np.float32)}
    assert len(read_peft(write_peft(tmp_path, tensors=copy)).modules) == 2


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    write_peft(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\x00" * 64, json.dumps([1]).encode()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnusableModel, match=name):
            read_peft(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UnusableModel, match=f"it has no {name}"):
        read_peft(tmp_path)
