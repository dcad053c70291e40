"""The fields that say how much a model reasons, in the spellings of OpenAI, OpenRouter, llama.cpp, Qwen and DeepSeek.

Sources: https://platform.openai.com/docs/api-reference/chat/create,
https://openrouter.ai/docs/use-cases/reasoning-tokens, llama.cpp's tools/server/README.md, and
https://help.aliyun.com/zh/model-studio/deep-thinking.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.serving.reasoning import ReasoningRequest, reasoning_of
from modelyard.errors import InvalidRequest

Effort = Literal["none", "off", "minimal", "low", "medium", "high", "xhigh", "max"]
Budget = Annotated[int, Field(ge=-1, le=2**31 - 1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


class ReasoningOptions(_Part):
    """OpenRouter's ``reasoning``."""

    effort: Effort | None = None
    max_tokens: Budget | None = Field(default=None, description="How many tokens may be reasoning.")
    enabled: bool | None = Field(default=None, description="Whether the model reasons.")


class ThinkingOptions(_Part):
    """``thinking`` of DeepSeek, GLM and Anthropic."""

    type: Literal["enabled", "disabled", "adaptive", "auto"]
    budget_tokens: Budget | None = Field(default=None, description="How many tokens may be reasoning.")


class ReasoningFields(_Part):
    """The fields of a request that control reasoning."""

    reasoning_effort: Effort | None = Field(
        default=None,
        description="For reasoning models: passed to the chat template, or a budget if that does not read it; `none` "
        "and `off` disable reasoning.",
    )
    enable_thinking: bool | None = None
    reasoning: ReasoningOptions | None = None
    thinking: ThinkingOptions | None = None
    thinking_budget: Budget | None = Field(
        default=None, description="How many tokens of the answer may be reasoning; 0: none, -1: no limit."
    )
    reasoning_budget: Budget | None = Field(default=None, description="Another name of `thinking_budget`.")
    reasoning_budget_tokens: Budget | None = Field(default=None, description="Another name of `thinking_budget`.")
    thinking_budget_tokens: Budget | None = Field(default=None, description="Another name of `thinking_budget`.")
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="Variables for the model's chat template."
    )

    def reasoning_request(self) -> ReasoningRequest:
        """Return what the request says about reasoning.

        Raises:
            InvalidRequest: two fields have different budgets.
        """
        nested, thinking = self.reasoning or ReasoningOptions(), self.thinking
        budgets = {
            "thinking_budget": self.thinking_budget,
            "reasoning_budget": self.reasoning_budget,
            "reasoning_budget_tokens": self.reasoning_budget_tokens,
            "thinking_budget_tokens": self.thinking_budget_tokens,
            "reasoning.max_tokens": nested.max_tokens,
            "thinking.budget_tokens": None if thinking is None else thinking.budget_tokens,
        }
        given = {name: budget for name, budget in budgets.items() if budget is not None}
        if len(set(given.values())) > 1:
            names = " and ".join(f"'{name}'" for name in given)
            raise InvalidRequest(f"{names} have different budgets. Send one of them.", list(given)[1])
        is_on = self.enable_thinking
        if is_on is None and nested.enabled is not None:
            is_on = nested.enabled
        if is_on is None and thinking is not None and thinking.type in ("enabled", "disabled"):
            is_on = thinking.type == "enabled"
        budget = next(iter(given.values()), None)
        return reasoning_of(
            options=self.chat_template_kwargs,
            effort=self.reasoning_effort or nested.effort,
            is_on=False if budget == 0 else is_on,
            budget=budget,
        )
