"""Whether and how long a model reasons, in the ways that chat templates offer, and otherwise by the prompt itself."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from modelyard.engine.chat.marked_text import MarkedText, by_template
from modelyard.engine.formats.reasoning import ReasoningFormat

# Tokens of reasoning for templates that do not read the effort themselves. "xhigh" and "max" have no limit.
# Source of the three in the middle: https://ai.google.dev/gemini-api/docs/openai#thinking
EFFORT_BUDGETS: Final[Mapping[str, int]] = {
    "none": 0,
    "off": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
}

# Variables with which templates switch reasoning: Qwen 3, GLM 4.5 and others; DeepSeek 3.1, Granite, Kimi K2.
_SWITCHES: Final = ("enable_thinking", "thinking")


def template_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the variables of a template with the switch under each of its names."""
    given = [options[name] for name in _SWITCHES if isinstance(options.get(name), bool)]
    return {**dict.fromkeys(_SWITCHES, given[0]), **options} if given else options


def is_off(options: Mapping[str, Any]) -> bool:
    """Whether the model is not to reason."""
    return any(options.get(name) is False for name in _SWITCHES)


def budget_of(own: int | None, options: Mapping[str, Any], variables: AbstractSet[str]) -> int | None:
    """Return how many tokens the reasoning of an answer may have; None: no limit.

    Args:
        own: ``Submit.reasoning_budget``.
        options: the variables that the request sets.
        variables: those that the template reads.
    """
    if is_off(options):
        return 0
    effort = options.get("reasoning_effort")
    if own is not None or "reasoning_effort" in variables or not isinstance(effort, str):
        return own
    return EFFORT_BUDGETS.get(effort)


def closed_prompt(
    prompt: MarkedText, reasoning: ReasoningFormat | None, options: Mapping[str, Any], variables: AbstractSet[str]
) -> MarkedText:
    """Return ``prompt`` with its reasoning closed, if the model is not to reason and the template cannot see to it."""
    if reasoning is None or not is_off(options) or prompt.rstrip().endswith(reasoning.close.strip()):
        return prompt
    if reasoning.opened_by(prompt):
        opened = prompt.rstrip("\n")
    elif variables.isdisjoint(_SWITCHES):
        opened = prompt + by_template(reasoning.open)
    else:
        return prompt
    # Models that were trained on empty reasoning know it with a blank line.
    return opened + by_template(("\n" if reasoning.written else "") + reasoning.closing)
