"""The towers that a checkpoint's config.json describes."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.hub.sources.checkpoint_config import Towers, towers_of

VISION = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
AUDIO = {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 64}
VISION_BYTES = 2 * (4 * 64 * 64 + 2 * 64 * 128) * 2
AUDIO_BYTES = 1 * (4 * 32 * 32 + 2 * 32 * 64) * 2


@pytest.mark.parametrize(
    ("config", "towers"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, None),
        ({"architectures": ["Gemma4ForConditionalGeneration"], "vision_config": None, "audio_config": None}, None),
        ({"architectures": ["G"], "vision_config": VISION}, Towers(("G",), True, False, VISION_BYTES)),
        ({"architectures": ["G"], "audio_config": AUDIO}, Towers(("G",), False, True, AUDIO_BYTES)),
        (
            {"architectures": ["G"], "vision_config": VISION, "audio_config": AUDIO},
            Towers(("G",), True, True, VISION_BYTES + AUDIO_BYTES),
        ),
        (
            {"architectures": ["InternVLChat"], "vision_config": {**VISION, "architectures": ["InternVisionModel"]}},
            Towers(("InternVisionModel", "InternVLChat"), True, False, VISION_BYTES),
        ),
        (
            {"architectures": ["Qwen2_5OmniModel"], "thinker_config": {"audio_config": AUDIO}},
            Towers(("Qwen2_5OmniModel",), False, True, AUDIO_BYTES),
        ),
        ({"vision_config": {"hidden_size": "wide"}}, Towers((), True, False, 0)),
        # The size of Gemma 3n's tower follows from its name, and its audio tower is not converted.
        (
            {
                "architectures": ["Gemma3nForConditionalGeneration"],
                "vision_config": {"architecture": "mobilenetv5_300m_enc", "hidden_size": 2048},
                "audio_config": {"hidden_size": 1536, "conf_num_hidden_layers": 12},
            },
            Towers(("Gemma3nForConditionalGeneration",), True, True, 294_126_912 * 2),
        ),
    ],
)
def test_towers_are_told_from_the_configuration(config: dict[str, Any], towers: Towers | None) -> None:
    assert towers_of(config) == towers


def test_towers_have_a_name_for_people() -> None:
    assert Towers((), True, False, 0).name == "vision tower"
    assert Towers((), True, True, 0).name == "vision and audio towers"
