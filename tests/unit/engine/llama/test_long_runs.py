"""Texts with long runs of characters of one kind are told from what people and programs write."""

from __future__ import annotations

import pytest

from modelyard.engine.llama.long_runs import MAX_DIGITS, MAX_RUN, has_long_run, uncommon_characters


@pytest.mark.parametrize(
    "text",
    [
        "a" * (MAX_RUN + 1),
        "ab" * MAX_RUN,
        " " * (MAX_RUN + 1),
        "\r\n" * MAX_RUN,
        "=-" * MAX_RUN,
        "_" * (MAX_RUN + 1),
        "日本" * MAX_RUN,
        "1" * (MAX_DIGITS + 1),
        "٣" * (MAX_DIGITS + 1),
        "a text " + "x" * (MAX_RUN + 1) + " within another",
    ],
)
def test_a_long_run(text: str) -> None:
    assert has_long_run(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * MAX_RUN,
        "1" * MAX_DIGITS,
        "the quick brown fox " * 10_000,
        "a1" * 100_000,
        "x = [1, 2, 3];\n" * 10_000,
        "1234 " * 10_000,
    ],
)
def test_no_long_run(text: str) -> None:
    assert not has_long_run(text)


@pytest.mark.parametrize(("text", "count"), [("", 0), ("plain", 0), ("日本 x", 2), ("\U0010ffff\ud800é", 3)])
def test_characters_outside_of_ascii_are_counted(text: str, count: int) -> None:
    assert uncommon_characters(text) == count


def test_characters_that_a_vocabulary_lacks_are_counted() -> None:
    assert uncommon_characters("a line\r\nanother\r\n\x04é", "\r\x04") == 4
