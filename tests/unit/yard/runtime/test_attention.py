"""Attention is fused where that is faster, unless the configuration says otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.engine.settings import micro_batch
from modelyard.formats.gguf.read import read_header
from modelyard.hub import ModelFiles
from modelyard.yard.runtime import attention
from modelyard.yard.runtime.model_spec import footprint_of
from support.gguf_writer import tiny_model, write


@pytest.fixture
def narrow(tmp_path: Path) -> ModelFiles:
    """A model whose heads have at most 64 values."""
    header = read_header(write(tmp_path / "tiny.gguf", tiny_model()))
    return ModelFiles((tmp_path / "tiny.gguf",), header, header.file_size, "", "F16", parameter_count=1)


def with_head_of(files: ModelFiles, values: int) -> ModelFiles:
    key = f"{files.header.architecture}.attention.key_length"
    return replace(files, header=replace(files.header, metadata={**files.header.metadata, key: values}))


def chosen(files: ModelFiles, *, has_devices: bool = False, cpu: bool = False, **runtime: Any) -> bool | None:
    model = {"model_id": "org/tiny", "device": {"cpu": cpu}}
    config = validate_config({"models": [model], "runtime": runtime})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(attention, "may_have_accelerators", lambda: has_devices)
        return attention.flash_attention(config, config.models[0], files)


def test_narrow_heads_on_a_cpu_are_computed_without(narrow: ModelFiles) -> None:
    assert chosen(with_head_of(narrow, 64)) is False
    assert chosen(with_head_of(narrow, 64), has_devices=True, cpu=True) is False


def test_wider_heads_and_devices_have_it_where_llama_cpp_can(narrow: ModelFiles) -> None:
    assert chosen(with_head_of(narrow, 128)) is None
    assert chosen(with_head_of(narrow, 64), has_devices=True) is None


def test_a_model_that_sees_or_embeds_has_it_where_llama_cpp_can(narrow: ModelFiles) -> None:
    files = with_head_of(narrow, 64)
    assert chosen(replace(files, projector_bytes=1)) is None
    assert chosen(replace(files, kind="embedding")) is None


def test_the_configuration_decides_first(narrow: ModelFiles) -> None:
    assert chosen(with_head_of(narrow, 64), flash_attn=True) is True
    assert chosen(with_head_of(narrow, 128), flash_attn=False) is False
    assert chosen(with_head_of(narrow, 64), kv_type="q8_0") is None


def test_scores_are_computed_for_few_tokens_at_once() -> None:
    assert micro_batch(512, False, has_projector=False) == 128
    assert micro_batch(64, False, has_projector=False) == 64
    assert micro_batch(512, False, has_projector=True) == 512
    assert micro_batch(512, None, has_projector=False) == 512


def test_what_is_predicted_has_the_scores_of_as_many_tokens_as_are_computed_at_once(narrow: ModelFiles) -> None:
    def context_bytes(batch_tokens: int, **runtime: Any) -> int:
        model = {"model_id": "org/tiny", "device": {"cpu": True, "max_seq_len": 4096}}
        config = validate_config({"models": [model], "runtime": {"batch_tokens": batch_tokens, **runtime}})
        return footprint_of(config, config.models[0], with_head_of(narrow, 64)).context_bytes

    assert context_bytes(512) == context_bytes(128)
    assert context_bytes(512, flash_attn=True) > context_bytes(128, flash_attn=True)
