"""The shapes by which a model's speed is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from modelyard.formats.gguf.read import read_header
from modelyard.yard.memory.layer_shapes import stand_in_shapes
from support.gguf_writer import tiny_model, write


def test_a_header_that_does_not_say_enough_has_no_shapes(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "tiny.gguf", tiny_model()))
    assert stand_in_shapes(header) is not None
    for lacking in ("llama.block_count", "llama.embedding_length", "llama.attention.head_count"):
        less = {key: value for key, value in header.metadata.items() if key != lacking}
        assert stand_in_shapes(replace(header, metadata=less)) is None
    unknown_experts = {**header.metadata, "llama.expert_used_count": 2}
    assert stand_in_shapes(replace(header, metadata=unknown_experts)) is None


def test_heads_that_cannot_be_paired_have_no_shapes(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "tiny.gguf", tiny_model()))
    heads = {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 3}
    for unpaired in ({"llama.attention.key_length": 33}, heads):
        assert stand_in_shapes(replace(header, metadata={**header.metadata, **unpaired})) is None
