"""A model that is not to reason finds its reasoning closed; an effort that templates do not read is a budget."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.engine.chat.marked_text import by_template
from modelyard.engine.chat.reasoning_switch import budget_of, closed_prompt, template_options
from modelyard.engine.formats.reasoning import REASONING

THINK, MISTRAL = REASONING["think"], REASONING["mistral"]
OFF = {"enable_thinking": False}


@pytest.mark.parametrize(
    ("prompt", "variables", "closed"),
    [
        ("A:<think>\n", {"enable_thinking"}, "A:<think>\n\n</think>\n\n"),
        ("A:<think>", set(), "A:<think>\n\n</think>\n\n"),
        ("A:", set(), "A:<think>\n\n</think>\n\n"),
        ("A:", {"enable_thinking"}, "A:"),
        ("A:", {"thinking"}, "A:"),
        ("A:<think>\n\n</think>\n\n", {"enable_thinking"}, "A:<think>\n\n</think>\n\n"),
    ],
)
def test_a_prompt_closes_what_its_template_leaves_open(prompt: str, variables: set[str], closed: str) -> None:
    assert closed_prompt(by_template(prompt), THINK, OFF, variables) == closed
    assert closed_prompt(by_template(prompt), THINK, {}, variables) == prompt
    assert closed_prompt(by_template(prompt), None, OFF, variables) == prompt


def test_other_markers_close_without_white_space() -> None:
    assert closed_prompt(by_template("A:"), MISTRAL, OFF, set()) == "A:[THINK][/THINK]"


@pytest.mark.parametrize(
    ("own", "options", "variables", "budget"),
    [
        (None, {}, set(), None),
        (7, {}, set(), 7),
        (7, OFF, set(), 0),
        (None, {"thinking": False}, set(), 0),
        (None, {"reasoning_effort": "low", "enable_thinking": True}, set(), 1024),
        (None, {"reasoning_effort": "low"}, {"reasoning_effort"}, None),
        (7, {"reasoning_effort": "low"}, set(), 7),
        (None, {"reasoning_effort": "max"}, set(), None),
    ],
)
def test_a_budget_comes_from_the_request_or_its_effort(
    own: int | None, options: dict[str, Any], variables: set[str], budget: int | None
) -> None:
    assert budget_of(own, options, variables) == budget


def test_templates_find_the_switch_under_both_names() -> None:
    assert template_options(OFF) == {"enable_thinking": False, "thinking": False}
    assert template_options({"thinking": True}) == {"enable_thinking": True, "thinking": True}
    assert template_options({"a": 1}) == {"a": 1}
