"""Sizes and durations in words."""

from __future__ import annotations

import pytest

from modelyard.system.printable import printable
from modelyard.system.quantities import count_text, duration_text, part_text, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (97_000_000, "97 MB"), (12_400_000_000, "12.4 GB")],
)
def test_a_size_has_the_unit_that_suits_it(count: int, text: str) -> None:
    assert size_text(count) == text


def test_a_part_names_its_unit_where_it_differs() -> None:
    assert part_text(5_100_000_000, 12_000_000_000) == "5.1 of 12.0 GB"
    assert part_text(437_000_000, 12_000_000_000) == "437 MB of 12.0 GB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (4.12, "4.1 s"), (12.4, "12 s"), (180, "3 min"), (7200, "2 h"), (86400 * 3, "3 days")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_one_is_no_plural() -> None:
    assert (count_text(1, "answer"), count_text(2, "answer")) == ("1 answer", "2 answers")


def test_what_does_not_print_is_escaped_and_what_is_too_long_is_cut() -> None:
    assert printable("smol ü 日") == "smol ü 日"
    assert printable("a\r\n\x1b\x7f\u2028\ud800") == "a\\r\\n\\x1b\\x7f\\u2028\\ud800"
    assert printable("abcdef", 3) == "abc…"
