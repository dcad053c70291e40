"""Shortens a conversation that does not fit the model's context, for ``truncation: "auto"``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelyard.errors import ContextLengthExceeded
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.requests import Request, TokenizeRequest
from modelyard.yard.yard import Yard

Messages = Sequence[Mapping[str, Any]]


def shortened(messages: Messages) -> list[tuple[Mapping[str, Any], ...]]:
    """Return a conversation without its oldest turns, in all ways that keep its meaning, the longest first.

    The system turns at its beginning stay. First the turns of earlier questions go, each with its answer; then the
    earliest calls of the last question go, each with its results.
    """
    first = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    system = tuple(messages[:first])
    questions = [index for index in range(first, len(messages)) if messages[index]["role"] == "user"]
    kept = [(*system, *messages[start:]) for start in questions if start > first]
    if questions:
        last = questions[-1]
        steps = [index for index in range(last + 2, len(messages)) if messages[index]["role"] == "assistant"]
        kept += [(*system, messages[last], *messages[start:]) for start in steps]
    return kept


async def truncated(yard: Yard, request: Request) -> tuple[Request, int]:
    """Return ``request`` with a conversation that leaves room for the answer, and the number of turns left out.

    Where no way of shortening is enough, the request is returned as it is: the engine then refuses it.

    Raises:
        ModelyardError: as ``Yard.tokenize``, but not for a conversation that is too long.
    """
    chat = request.prompt
    assert isinstance(chat, Chat)
    if await _fits(yard, request, chat):
        return request, 0
    ways = shortened(chat.messages)
    low, high = 0, len(ways)
    while low < high:
        middle = (low + high) // 2
        if await _fits(yard, request, replace(chat, messages=ways[middle])):
            high = middle
        else:
            low = middle + 1
    if low == len(ways):
        return request, 0
    shorter = replace(request, prompt=replace(chat, messages=ways[low]))
    return shorter, len(chat.messages) - len(ways[low])


async def _fits(yard: Yard, request: Request, chat: Chat) -> bool:
    counted = TokenizeRequest(prompt=chat, model=request.model, urgency=request.urgency)
    try:
        tokens = len((await yard.tokenize(counted)).tokens)
    except ContextLengthExceeded:
        return False
    # Known, because counting has loaded the model.
    context = yard.model(yard.configured(request.model).id).context_length or 0
    if (limit := current_caller().max_context) is not None:
        context = min(context, limit)
    # An answer of unknown length gets an eighth of the context, and the longest leaves half of it to the prompt.
    answer = min(request.max_tokens or context // 8, context // 2)
    return tokens + max(answer, 1) <= context
