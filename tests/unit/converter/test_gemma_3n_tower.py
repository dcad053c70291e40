"""Gemma 3n's projector has the vision tower alone, in the shapes and types that llama.cpp computes with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from modelyard.converter.gemma_3n_tower import needs_f16, with_gemma_3n_tower

BLOCK = "model.vision_tower.timm_model.blocks.1.0."


class Projector:
    """The parts of a projector class of llama.cpp's converter that are changed."""

    model_arch = "mmproj"
    has_audio_encoder = True

    def __init__(self) -> None:
        self.saw_two_towers = self.has_audio_encoder

    @classmethod
    def filter_tensors(cls, item: Any) -> Any:
        return None if "language_model." in item[0] else item

    def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterable[tuple[str, Any]]:
        yield name, data_torch


def test_the_file_has_no_audio_encoder_though_both_towers_are_configured() -> None:
    model = with_gemma_3n_tower(Projector)()
    assert model.saw_two_towers
    assert not model.has_audio_encoder


@pytest.mark.parametrize(
    ("name", "is_read"),
    [
        ("model.vision_tower.timm_model.conv_stem.conv.weight", True),
        ("model.embed_vision.embedding_projection.weight", True),
        ("model.audio_tower.subsample_conv_projection.conv_0.norm.weight", False),
        ("model.embed_audio.embedding_projection.weight", False),
        ("model.language_model.norm.weight", False),
    ],
)
def test_tensors_of_the_vision_tower_alone_are_read(name: str, is_read: bool) -> None:
    weights = object()
    assert with_gemma_3n_tower(Projector).filter_tensors((name, weights)) == ((name, weights) if is_read else None)


def test_the_scale_of_a_layer_is_multiplied_by_channels(torch: Any) -> None:
    scale = torch.arange(3.0)
    [(_, written)] = with_gemma_3n_tower(Projector)().modify_tensors(scale, f"{BLOCK}layer_scale.gamma", 1)
    assert written.shape == (1, 3, 1, 1)
    assert written.flatten().tolist() == scale.tolist()


def test_other_tensors_stay_as_they_are(torch: Any) -> None:
    weights = torch.ones(2, 3, 1, 1)
    [(_, written)] = with_gemma_3n_tower(Projector)().modify_tensors(weights, f"{BLOCK}pw_exp.conv.weight", 1)
    assert written is weights


@pytest.mark.parametrize(
    ("name", "n_dims", "with_f32", "with_bf16"),
    [
        (f"{BLOCK}pw_exp.conv.weight", 4, False, True),
        (f"{BLOCK}dw_mid.conv.weight", 4, True, True),
        (f"{BLOCK}dw_start.conv.weight", 4, True, True),
        (f"{BLOCK}attn.key.down_conv.weight", 4, True, True),
        (f"{BLOCK}attn.key.proj.weight", 4, False, True),
        (f"{BLOCK}layer_scale.gamma", 4, False, False),
        (f"{BLOCK}pw_exp.bn.weight", 1, False, False),
        ("model.embed_vision.embedding_projection.weight", 2, False, False),
    ],
)
def test_convolutions_have_types_that_processors_compute_with(
    name: str, n_dims: int, with_f32: bool, with_bf16: bool
) -> None:
    assert needs_f16(name, n_dims, is_f32=True) == with_f32
    assert needs_f16(name, n_dims, is_f32=False) == with_bf16
