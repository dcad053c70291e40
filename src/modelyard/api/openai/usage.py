"""Token counts in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.api.openapi.answers_openai import TokenUsage
from modelyard.protocol.events import Finished
from modelyard.protocol.values import Usage


def total_usage(finished: Sequence[Finished], choices: int) -> Usage:
    """Return the usage of all choices. ``finished`` has ``choices`` in a row for each prompt, which counts once."""
    usages = [each.usage for each in finished]
    prompts = usages[::choices]
    return Usage(
        sum(usage.prompt_tokens for usage in prompts),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in prompts),
        sum(usage.reasoning_tokens for usage in usages),
    )


def usage_object(usage: Usage) -> TokenUsage:
    """Return OpenAI's ``usage``; cached_tokens are the tokens of the prompt that needed no prefill."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
