"""The tensors of a checkpoint that become layers, and the types that layers are stored in."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.converter.safetensors_file import MappedTensor
from modelyard.converter.uqff.layers import Layer, choose_stored, sort_tensors


def tensor(name: str, *shape: int, dtype: str = "F16") -> MappedTensor:
    return MappedTensor(name, dtype, shape, np.zeros(2 * int(np.prod(shape)), np.uint8))


def a_layer(columns: int, *, experts: int = 1, is_sensitive: bool = False) -> Layer:
    parts = tuple(tensor(f"{number}", 8, columns) for number in range(experts))
    return Layer("x", parts, None, is_stacked=experts > 1, is_sensitive=is_sensitive)


def test_linear_layers_and_embeddings_are_layers_and_the_rest_stays():
    layers, rest = sort_tensors(
        [
            tensor("model.embed_tokens.weight", 8, 4),
            tensor("model.layers.0.self_attn.q_proj.weight", 4, 4),
            tensor("model.layers.0.self_attn.q_proj.bias", 4),
            tensor("model.layers.0.mlp.gate.weight", 4, 4),
            tensor("model.layers.0.input_layernorm.weight", 4),
            tensor("model.layers.0.conv.q_proj.weight", 4, 4, 3),
            tensor("model.layers.0.mlp.up_proj.weight", 4, 4, dtype="F8_E4M3"),
            tensor("model.vision_tower.layers.0.self_attn.q_proj.weight", 4, 4),
            tensor("lm_head.weight", 8, 4),
        ]
    )
    assert [(layer.prefix, layer.is_sensitive, layer.bias is not None) for layer in layers] == [
        ("lm_head", True, False),
        ("model.embed_tokens", True, False),
        ("model.layers.0.self_attn.q_proj", False, True),
    ]
    assert len(rest) == 5


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        ("model.layers.0.mlp.experts", ("gate_proj", "up_proj", "down_proj")),
        ("model.layers.0.block_sparse_moe.experts", ("w1", "w3", "w2")),
    ],
)
def test_the_experts_of_a_block_are_three_layers_in_the_order_of_their_numbers(block: str, parts: tuple[str, ...]):
    layers, rest = sort_tensors(
        tensor(f"{block}.{number}.{part}.weight", 4, 4) for part in parts for number in range(11)
    )
    assert not rest
    assert [layer.prefix for layer in layers] == [f"{block}.{part}" for part in ("down_proj", "gate_proj", "up_proj")]
    assert layers[1].shape == (11, 4, 4)
    assert [part.name for part in layers[1].parts] == [f"{block}.{n}.{parts[0]}.weight" for n in range(11)]


def test_experts_that_are_not_all_there_stay_as_they_are():
    layers, rest = sort_tensors(tensor(f"mlp.experts.{number}.up_proj.weight", 4, 4) for number in (0, 2))
    assert not layers
    assert len(rest) == 2


@pytest.mark.parametrize(
    ("type_", "columns", "stored"),
    [
        ("q4k", 256, "q4k"), ("q4k", 288, "q4_1"), ("q2k", 96, "q4_0"), ("q3k", 96, "q4_0"), ("q5k", 96, "q5_0"),
        ("q6k", 96, "q5_1"), ("q8k", 96, "q8_1"), ("q4k", 100, "unquant"), ("afq4", 96, "unquant"),
        ("afq4", 128, "afq4"), ("hqq8", 96, "unquant"), ("mxfp4", 48, "unquant"), ("f8q8", 96, "f8q8"),
        ("fp8", 100, "fp8"),
    ],
)  # fmt: skip
def test_rows_decide_what_a_layer_is_stored_as(type_: str, columns: int, stored: str):
    choice = choose_stored(type_, a_layer(columns))
    assert choice.stored == stored
    assert bool(choice.reason) == (stored == "unquant")


@pytest.mark.parametrize(
    ("type_", "wanted", "stored"),
    [
        ("afq2", "afq6", "afq6"), ("afq6", "afq8", "afq8"), ("q4k", "q6k", "q6k"), ("q4_1", "q6k", "q6k"),
        ("q5k", "q8_0", "q8_0"), ("hqq4", "hqq4", "hqq4"), ("mxfp4", "mxfp4", "mxfp4"),
    ],
)  # fmt: skip
def test_embeddings_and_heads_get_more_bits(type_: str, wanted: str, stored: str):
    choice = choose_stored(type_, a_layer(256, is_sensitive=True))
    assert (choice.wanted, choice.stored) == (wanted, stored)


def test_experts_of_a_type_without_a_layout_for_them_are_not_quantised():
    assert choose_stored("hqq4", a_layer(256, experts=4)).reason == "hqq4 has no layout for stacked experts"
    assert choose_stored("afq4", a_layer(256, experts=4)).stored == "afq4"
