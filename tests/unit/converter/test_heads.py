"""Prediction heads (MTP) that a checkpoint declares, and does or does not have."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.converter.heads import declares_head, has_head, headless, without_declared_head
from modelyard.converter.settings import with_fixed_settings


class Converter:
    """The part of a class of llama.cpp's converter that concerns prediction heads."""

    model_arch = "glm4moe"
    no_mtp = False


class QwenConverter(Converter):
    opt_num_mtp_layers = 0


@pytest.mark.parametrize(
    ("names", "has_one"),
    [
        (["model.layers.3.mlp.up_proj.weight", "model.norm.weight"], False),
        (["model.layers.4.mlp.up_proj.weight"], True),
        (["model.language_model.layers.4.mlp.up_proj.weight"], True),
        (["mtp.fc.weight"], True),
        (["model.mtp.layers.0.input_layernorm.weight"], True),
        (["model.mtp_block.0.mlp.up_proj.weight"], True),
        (["model.vision_tower.layers.9.mlp.up_proj.weight", "visual.blocks.9.attn.proj.weight"], False),
    ],
)
def test_a_head_is_known_by_the_names_of_its_tensors(names: list[str], has_one: bool) -> None:
    assert has_head(names, layers=4) is has_one


@pytest.mark.parametrize(
    ("config", "converter", "declares"),
    [
        ({"num_nextn_predict_layers": 1}, Converter, True),
        ({"num_nextn_predict_layers": 0}, Converter, False),
        ({"text_config": {"mtp_num_hidden_layers": 1}}, Converter, True),
        ({}, Converter, False),
        ({}, QwenConverter, True),
    ],
)
def test_a_head_is_declared_by_the_configuration_or_belongs_to_the_architecture(
    config: dict[str, Any], converter: type[Converter], declares: bool
) -> None:
    assert declares_head(config, converter) is declares


def test_a_checkpoint_without_its_head_is_converted_as_one_that_has_none() -> None:
    config = {"num_nextn_predict_layers": 1, "text_config": {"mtp_num_hidden_layers": 2, "hidden_size": 8}}
    without = without_declared_head(config)
    assert without == {"num_nextn_predict_layers": 0, "text_config": {"mtp_num_hidden_layers": 0, "hidden_size": 8}}
    assert not declares_head(without, Converter)
    assert headless(Converter).no_mtp
    assert not Converter.no_mtp


def test_what_a_class_has_fixed_is_said_where_the_configuration_does_not() -> None:
    assert with_fixed_settings({"a": 1}, "DeepseekV3ForCausalLM") == {"a": 1, "scoring_func": "sigmoid"}
    assert with_fixed_settings({"scoring_func": "softmax"}, "DeepseekV3ForCausalLM") == {"scoring_func": "softmax"}
    assert with_fixed_settings({"a": 1}, "LlamaForCausalLM") == {"a": 1}


def test_a_bloom_that_does_not_say_how_long_its_context_is_has_the_one_it_was_trained_on() -> None:
    assert with_fixed_settings({"n_embed": 128}, "BloomForCausalLM") == {"n_embed": 128, "seq_length": 2048}
    assert with_fixed_settings({"seq_length": 4096}, "BloomForCausalLM") == {"seq_length": 4096}
