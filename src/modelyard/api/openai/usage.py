"""Token counts as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any

from modelyard.engine.messages import Usage


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's ``usage``; cached_tokens are those of the prompt that cost no prefill."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
