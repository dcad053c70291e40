"""Numbers of tokens with a unit."""

import pytest

from modelyard.config import validate_config
from modelyard.config.counts import read_thousands, read_tokens
from modelyard.errors import ConfigError


def config(length=None, **key):
    device = {} if length is None else {"device": {"max_seq_len": length}}
    keys = [{"name": "a", "key": "sk-" + "a" * 40, **key}] if key else []
    return validate_config({"models": [{"model_id": "org/m", **device}], "server": {"keys": keys}})


@pytest.mark.parametrize(
    ("text", "tokens"), [("8k", 8192), ("32K", 32_768), (" 128 k ", 131_072), ("1M", 1_048_576), ("1.5k", 1536)]
)
def test_a_length_counts_in_units_of_1024(text, tokens):
    assert read_tokens(text) == tokens
    assert config(text).models[0].device.max_seq_len == tokens


def test_a_quota_counts_in_thousands():
    assert read_thousands("100k") == 100_000
    key = config(tokens_per_minute="1.5M", max_context="4k", max_tokens="2k").server.keys[0]
    assert (key.tokens_per_minute, key.max_context, key.max_tokens) == (1_500_000, 4096, 2048)


@pytest.mark.parametrize("value", ["", "k", "8", "8kb", "8G", "-8k", "1e3k", "0.0001k", "٣k", 8, 8.5, None, True])
def test_anything_else_is_left_to_the_bounds_of_its_key(value):
    assert read_tokens(value) is value


@pytest.mark.parametrize("text", ["auto", "AUTO", " auto "])
def test_a_length_can_be_chosen_by_what_fits(text):
    device = config(text).models[0].device
    assert device.max_seq_len == "auto"
    assert device.fixed_seq_len is None


@pytest.mark.parametrize("value", ["8kb", "many", "0k", "9000M", True, 0])
def test_a_length_that_is_none_is_refused_with_an_example(value):
    with pytest.raises(
        ConfigError, match='max_seq_len must be a whole number from 1 to 2147483647, or one such as "8k"'
    ):
        config(value)


def test_a_number_in_quotes_says_what_to_write():
    with pytest.raises(ConfigError, match="Write 8192, without quotes"):
        config("8192")
