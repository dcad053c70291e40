"""Durations and sizes in words."""

import pytest

from modelyard.config.durations import seconds_of
from modelyard.config.sizes import SIZE_WORDING, size_hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("90s", 90),
        ("250ms", 0.25),
        ("1.5 h", 5400),
        ("2 days", 172_800),
        ("1 hour 30 min", 5400),
        ("0s", 0),
        ("5M", 300),
    ],
)
def test_a_duration_is_numbers_with_units(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 parsecs", "-5m", "5m,", "1e3s", "5m 3", "٣s"])
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(ValueError, match="10m"):
        seconds_of(text)


def test_a_size_with_half_a_unit_says_what_it_may_mean():
    assert size_hint("16G", SIZE_WORDING) == 'Write "16GiB" or "16GB".'
    assert size_hint("16x", SIZE_WORDING) == size_hint("16G", "true or false") == ""
