"""Messages for failures of llama.cpp's converter."""

from __future__ import annotations

import pytest

from modelyard.converter.explain import refusal


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (KeyError("global_head_dim"), "the key 'global_head_dim'"),
        (KeyError("could not find any of: ['n_layers', 'depth']"), "one of the keys ['n_layers', 'depth']"),
        (ValueError("Can not map tensor 'model.layers.0.x.weight'"), "the tensor 'model.layers.0.x.weight'"),
        (ValueError("Unprocessed experts: ['a.1', 'a.2']"), "the tensor '['a.1', 'a.2']'"),
        (ValueError("Duplicated tensor name 'cls.weight'"), "two of its tensors become one, 'cls.weight'"),
        (NotImplementedError("BPE pre-tokenizer was not recognized - update"), "an unknown BPE pre-tokenizer"),
        (AttributeError("GPT2Tokenizer has no attribute mergeable_ranks"), "its tokenizer is a program"),
        (ValueError("Unsupported model type: clip_vision_model"), "a tower of the type 'clip_vision_model'"),
        (FileNotFoundError(2, "No such file", "/x/tokenizer.model"), "the file /x/tokenizer.model is missing"),
        (ModuleNotFoundError("No module named 'tiktoken'", name="tiktoken"), "the Python package 'tiktoken'"),
        (AssertionError(), "AssertionError: no reason is given"),
    ],
)
def test_a_failure_names_the_architecture_and_what_it_is_about(error: Exception, named: str) -> None:
    text = str(refusal(error, "Gemma4ForCausalLM"))
    assert "Gemma4ForCausalLM" in text
    assert named in text
    assert text.endswith(".")
