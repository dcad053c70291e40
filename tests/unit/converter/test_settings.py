"""Settings of checkpoints that the converter needs, and that tools leave out or name otherwise."""

from __future__ import annotations

from modelyard.converter.settings import with_fixed_settings


def test_a_setting_that_the_class_fixes_is_added_unless_the_checkpoint_has_it():
    assert with_fixed_settings({}, "BloomForCausalLM")["seq_length"] == 2048
    assert with_fixed_settings({"seq_length": 4096}, "BloomForCausalLM")["seq_length"] == 4096


def test_the_rotated_part_of_gpt_neox_is_found_where_transformers_saves_it():
    saved = {"rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.25}}
    assert with_fixed_settings(saved, "GPTNeoXForCausalLM")["rotary_pct"] == 0.25
    assert with_fixed_settings({**saved, "rotary_pct": 0.5}, "GPTNeoXForCausalLM")["rotary_pct"] == 0.5
    assert "rotary_pct" not in with_fixed_settings(saved, "LlamaForCausalLM")
