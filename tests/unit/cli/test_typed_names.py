"""Errors of the configuration in the words of the command line."""

from __future__ import annotations

import pytest

from modelyard.cli.typed_names import OptionError, as_typed, options_as_typed
from modelyard.errors import ConfigError, UnusableModel, UnusableModels


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("[models.device] of model 1 ('x.gguf'): max_seq_len must be 5, not -5.", "--ctx must be 5, not -5."),
        ("[server]: port must be a whole number.", "--port must be a whole number."),
        ("[[models]] 1 ('x'): kind must be one of 3.", "--kind must be one of 3."),
        ("Set quant to one of 'q4_k_m', or name the file.", "Set --quant to one of 'q4_k_m', or name the file."),
        ("There are 2 models, and no 'quant' selects one.", "There are 2 models, and no --quant selects one."),
        ("Remove quant.", "Remove --quant."),
        ("quant = 'auto' finds nothing.", "--quant auto finds nothing."),
        ('format "plain" is full precision', "--format plain is full precision"),
        ("Set kind = 'text'.", "Set --kind text."),
        ("isq 'x' is not known.", "--isq 'x' is not known."),
        ("model_id names a file already.", "The model names a file already."),
        (
            "/models/quant/isq.gguf: a host of a kind, in a format.",
            "/models/quant/isq.gguf: a host of a kind, in a format.",
        ),
        ("'quantised' and quantiser stay.", "'quantised' and quantiser stay."),
    ],
)
def test_keys_become_options_and_words_stay(message: str, typed: str) -> None:
    assert as_typed(message) == typed


def test_a_wrong_value_is_a_wrong_command_line_and_a_bad_model_is_not() -> None:
    cases = [(ConfigError("command line", ["[server]: port must be 1."]), 2), (UnusableModel("Remove quant."), 4)]
    cases.append((UnusableModels("models", ["model 'x': Remove quant.", "model 'y': Set isq."]), 4))
    for error, code in cases:
        with pytest.raises(OptionError) as raised, options_as_typed():
            raise error
        assert raised.value.exit_code == code
    assert str(raised.value) == "model 'x': Remove --quant.\nmodel 'y': Set --isq."


def test_the_one_model_of_a_command_is_not_named_beside_what_is_wrong_with_it() -> None:
    with pytest.raises(OptionError) as raised, options_as_typed():
        raise UnusableModels("models", ["model 'x': Set isq."])
    assert str(raised.value) == "Set --isq."
