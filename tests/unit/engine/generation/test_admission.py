"""How much of a prompt is left, and what an answer must not have."""

from __future__ import annotations

import pytest

from modelyard.engine.generation.admission import cut_length, excluded_texts
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import SequenceId


def request(**options: int) -> Submit:
    return Submit(SequenceId(1), Text("a"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({}, None),
        ({"max_prompt_tokens": 10}, 10),
        ({"max_prompt_tokens": 10, "max_tokens": 95}, 10),
        ({"max_prompt_tokens": 10, "max_tokens": 4096}, 10),
        ({"max_prompt_tokens": 4096}, 99),
        ({"max_prompt_tokens": 0}, 99),
        ({"max_prompt_tokens": 0, "max_tokens": 30}, 70),
        ({"max_prompt_tokens": 60, "max_tokens": 30, "max_context": 80}, 50),
        ({"max_prompt_tokens": 0, "max_tokens": 30, "max_context": 80}, 50),
    ],
)
def test_a_prompt_is_cut_to_what_is_asked_for_and_fits(options: dict[str, int], length: int | None) -> None:
    assert cut_length(request(**options), 100) == length


def test_an_answer_that_leaves_no_room_for_a_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'max_tokens' is 100, and the context of the model has 100 tokens"):
        cut_length(request(max_prompt_tokens=0, max_tokens=100), 100)


def test_a_word_is_excluded_with_and_without_a_blank_and_blanks_as_they_are() -> None:
    assert excluded_texts(["yes", " yes", "\n", " "]) == ["yes", " yes", "\n", " "]
