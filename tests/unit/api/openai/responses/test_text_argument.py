"""The text of a custom tool's argument, read while its JSON is generated."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.openai.responses.text_argument import TextArgument


def read(pieces: list[str]) -> tuple[str, str]:
    """The text in pieces, joined, and the whole text."""
    argument = TextArgument()
    streamed = "".join(map(argument.push, pieces))
    rest, whole = argument.finish()
    return streamed + rest, whole


@given(text=st.text(max_size=40), is_ascii=st.booleans(), size=st.integers(1, 7))
def test_the_pieces_add_up_to_the_text_wherever_it_is_cut(text: str, is_ascii: bool, size: int) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=is_ascii)
    pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
    assert read(pieces) == (text, text)


def test_text_is_given_as_soon_as_it_is_certain() -> None:
    argument = TextArgument()
    assert [argument.push(piece) for piece in ('{"input"', ': "a', "b\\", "nc\\u00", 'e9"', "}")] == [
        "",
        "a",
        "b",
        "\nc",
        "é",
        "",
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"patch": "x"}', "x"),
        ('"x"', "x"),
        ('{"a": "x", "b": 1}', '{"a": "x", "b": 1}'),
        ("no JSON", "no JSON"),
        ('{"other": 1, "input": "x"}', "x"),
        ('{"input": "\\ud83d"}', "\ufffd"),
        ("{}", "{}"),
    ],
)
def test_arguments_of_another_form_are_read_at_their_end(arguments: str, text: str) -> None:
    assert read(list(arguments)) == (text, text)
    assert read([arguments]) == (text, text)
