"""All dialects say the same about reasoning in words of their own."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import InvalidRequest
from unit.api.openai.test_answer_format import anthropic, chat, ollama, responses

ON, OFF = {"enable_thinking": True}, {"enable_thinking": False}
LIMITED = {**ON, "thinking_budget": 64}
LOW = {"reasoning_effort": "low", **ON}


@pytest.mark.parametrize(
    ("take", "fields", "options", "budget"),
    [
        (chat, {}, {}, None),
        (chat, {"reasoning_effort": "low"}, LOW, None),
        (chat, {"reasoning": {"effort": "low"}}, LOW, None),
        (chat, {"reasoning_effort": "none"}, {"reasoning_effort": "none", **OFF}, None),
        (chat, {"reasoning_budget": 64}, LIMITED, 64),
        (chat, {"thinking_budget": 64, "reasoning_budget": 64}, LIMITED, 64),
        (chat, {"thinking_budget_tokens": 64}, LIMITED, 64),
        (chat, {"reasoning": {"max_tokens": 64}}, LIMITED, 64),
        (chat, {"thinking": {"type": "enabled", "budget_tokens": 64}}, LIMITED, 64),
        (chat, {"chat_template_kwargs": {"thinking_budget": 64}}, {"thinking_budget": 64}, 64),
        (chat, {"thinking_budget": 0}, OFF, None),
        (chat, {"reasoning_budget": -1}, ON, None),
        (chat, {"thinking": {"type": "disabled"}}, OFF, None),
        (chat, {"reasoning": {"enabled": False}}, OFF, None),
        (chat, {"enable_thinking": False, "reasoning_effort": "low"}, {**LOW, **OFF}, None),
        (anthropic, {"thinking": {"type": "enabled", "budget_tokens": 64}}, LIMITED, 64),
        (anthropic, {"thinking": {"type": "disabled"}}, OFF, None),
        (anthropic, {"thinking": {"type": "enabled", "budget_tokens": 0}}, OFF, None),
        (anthropic, {"output_config": {"effort": "low"}}, LOW, None),
        (ollama, {"think": True}, ON, None),
        (ollama, {"think": False}, OFF, None),
        (ollama, {"think": "low"}, LOW, None),
        (responses, {"reasoning": {"effort": "low"}}, LOW, None),
        (responses, {"reasoning": {"effort": "none"}}, {"reasoning_effort": "none", **OFF}, None),
        (responses, {"reasoning": {"max_tokens": 64}}, LIMITED, 64),
    ],
)
def test_a_request_becomes_variables_and_a_budget(take: Any, fields: Any, options: Any, budget: int | None) -> None:
    request = take(**fields)
    assert (request.prompt.options, request.reasoning_budget) == (options, budget)


def test_two_budgets_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"'thinking_budget' and 'reasoning\.max_tokens'"):
        chat(thinking_budget=1, reasoning={"max_tokens": 2})
