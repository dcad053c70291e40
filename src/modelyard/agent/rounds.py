"""The request of each round of an agent's answer. Pure functions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from modelyard.protocol.prompts import Chat, NamedTool
from modelyard.protocol.values import Usage
from modelyard.yard.requests.requests import Request


def next_round(asked: Request, chat: Chat, number: int, used: Usage) -> Request:
    """Return the request of a round.

    Args:
        asked: the request for the whole answer.
        chat: the conversation so far.
        number: of the round, from 0.
        used: tokens of the rounds before it. Those of their answers count against the bounds of the whole answer.
    """
    if number == 0:
        return replace(asked, prompt=chat)
    # A call that the request demands has been made. Scores and echoes of the prompt belong to its first round.
    return replace(
        asked,
        prompt=replace(chat, tool_choice=chat.tool_choice if chat.tool_choice == "none" else "auto"),
        max_tokens=None if asked.max_tokens is None else max(0, asked.max_tokens - used.completion_tokens),
        min_tokens=max(0, asked.min_tokens - used.completion_tokens),
        prompt_logprobs=None,
        echoes=False,
    )


def bounded(asked: Request, max_tokens: int | None) -> Request:
    """Return the request with the bound of its caller for the tokens of an answer, where it names none itself.

    The yard refuses a request that names a higher one. Otherwise the bound would hold for each round by itself.
    """
    return asked if asked.max_tokens is not None else replace(asked, max_tokens=max_tokens)


def is_used_up(asked: Request, used: Usage) -> bool:
    """Whether no token is left for another round."""
    return asked.max_tokens is not None and used.completion_tokens >= asked.max_tokens


def without_tools(chat: Chat, names: Collection[str]) -> Chat:
    """Return the conversation without the tools ``names``; tools of the client stay."""
    tools = tuple(tool for tool in chat.tools if tool["function"]["name"] not in names)
    choice = chat.tool_choice
    if not tools or (isinstance(choice, NamedTool) and choice.name in names):
        choice = "none" if not tools else "auto"
    return replace(chat, tools=tools, tool_choice=choice)


def added(first: Usage, second: Usage) -> Usage:
    """Return the sum of two usages."""
    return Usage(
        first.prompt_tokens + second.prompt_tokens,
        first.completion_tokens + second.completion_tokens,
        first.cached_tokens + second.cached_tokens,
        first.reasoning_tokens + second.reasoning_tokens,
    )
