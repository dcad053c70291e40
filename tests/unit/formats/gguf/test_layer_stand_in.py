"""A stand-in has the shapes of a model, fewer layers, and no bytes on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.formats.gguf.layer_stand_in import LayerShapes, stand_in_tensors, write_stand_in
from modelyard.formats.gguf.write import tensor_bytes

SHAPES = LayerShapes(
    layers=30, width=512, hidden=1024, heads=8, kv_heads=2, head=64, vocabulary=1000, experts=0, experts_used=0
)


def test_it_has_as_many_layers_as_are_asked_for() -> None:
    dense = {name: (shape, kind) for name, shape, kind in stand_in_tensors(SHAPES, "Q4_K", 3)}
    assert len(dense) == 2 + 3 * 9
    assert dense["blk.2.attn_k.weight"] == ((512, 128), "Q4_K")
    assert dense["token_embd.weight"] == ((512, 1000), "Q4_K")
    assert dense["blk.0.ffn_norm.weight"] == ((512,), "F32")


def test_layers_of_experts_have_all_of_them() -> None:
    mixed = {name: shape for name, shape, _ in stand_in_tensors(replace(SHAPES, experts=4, experts_used=2), "Q8_0", 1)}
    assert mixed["blk.0.ffn_down_exps.weight"] == (1024, 512, 4)
    assert mixed["blk.0.ffn_gate_inp.weight"] == (512, 4)


def test_it_takes_no_room_on_the_disk(tmp_path: Path) -> None:
    size = write_stand_in(tmp_path / "many.gguf", SHAPES, "F16", 30)
    assert (tmp_path / "many.gguf").stat().st_blocks * 512 < size / 50


def test_columns_that_are_no_whole_blocks_have_the_type_that_llama_cpp_falls_back_to() -> None:
    types = {name: kind for name, _, kind in stand_in_tensors(replace(SHAPES, width=576, head=48), "Q4_K", 1)}
    assert types["blk.0.attn_q.weight"] == "Q5_0"
    assert types["blk.0.ffn_down.weight"] == "Q4_K"
    assert stand_in_tensors(replace(SHAPES, width=90, head=30), "Q4_K", 1)[0][2] == "F16"


def test_the_size_of_a_tensor_is_that_of_its_blocks() -> None:
    assert tensor_bytes((256, 3), "Q4_K") == 3 * 144
    with pytest.raises(ValueError, match="100 columns are not whole blocks of 256"):
        tensor_bytes((100,), "Q4_K")
