"""Token counts as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.protocol.events import Finished
from modelyard.protocol.values import Usage


def total_usage(finished: Sequence[Finished], choices: int) -> Usage:
    """Of all answers. Each prompt has so many ``choices``, one after the other, and counts once."""
    usages = [each.usage for each in finished]
    prompts = usages[::choices]
    return Usage(
        sum(usage.prompt_tokens for usage in prompts),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in prompts),
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's ``usage``; cached_tokens are those of the prompt that cost no prefill."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
