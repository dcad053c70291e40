"""How much a model is to reason, in the words of all dialects: variables for its chat template, and a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

OFF: Final = ("none", "off")
"""The efforts that switch reasoning off."""


@dataclass(frozen=True, slots=True)
class ReasoningRequest:
    """What a request says about reasoning.

    Attributes:
        options: variables for the chat template.
        budget: see ``Submit.reasoning_budget``.
    """

    options: Mapping[str, Any]
    budget: int | None


def reasoning_of(
    *,
    options: Mapping[str, Any] | None = None,
    effort: str | None = None,
    is_on: bool | None = None,
    budget: int | None = None,
) -> ReasoningRequest:
    """Return what a request says about reasoning.

    Args:
        options: variables for the chat template that the request sets itself.
        effort: how much to reason; one of OFF: not at all.
        is_on: whether to reason at all; takes precedence over the others.
        budget: how many tokens may be reasoning; 0: none, below 0: no limit.
    """
    given = dict(options or {})
    if effort is not None:
        given |= {"reasoning_effort": effort, "enable_thinking": effort not in OFF}
    if budget is not None:
        given["enable_thinking"] = budget != 0
        if budget > 0:
            # Seed-OSS's template writes the budget into the prompt.
            given["thinking_budget"] = budget
    if is_on is not None:
        given["enable_thinking"] = is_on
    own = given.get("thinking_budget")
    if budget is None and type(own) is int:
        budget = own
    return ReasoningRequest(given, budget if budget is not None and budget > 0 else None)
