"""Shortens a conversation that does not fit the model's context, for ``truncation: "auto"`` and compaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelyard.errors import ContextLengthExceeded
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.requests import Request, TokenizeRequest
from modelyard.yard.yard import Yard

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Shortening:
    """A way to leave the oldest turns out of a conversation, as indices of its messages.

    Attributes:
        system: the number of system turns at the beginning, which stay.
        question: the question that stays before ``start``; None: none does.
        start: the first of the later turns that stay.
    """

    system: int
    question: int | None
    start: int

    def of(self, messages: Messages) -> tuple[Mapping[str, Any], ...]:
        """Return the turns of ``messages`` that stay."""
        question = () if self.question is None else (messages[self.question],)
        return (*messages[: self.system], *question, *messages[self.start :])


def shortenings(messages: Messages, tail: int = 0) -> list[Shortening]:
    """Return all ways of shortening a conversation that keep its meaning, the longest result first.

    The system turns at its beginning stay. First the turns of earlier questions go, each with its answer; then the
    earliest calls of the last question go, each with its results.

    Args:
        messages: the conversation.
        tail: the number of messages at its end that stay, and are no question of the conversation.
    """
    end = len(messages) - tail
    first = next((index for index in range(end) if messages[index]["role"] != "system"), end)
    questions = [index for index in range(first, end) if messages[index]["role"] == "user"]
    ways = [Shortening(first, None, start) for start in questions if start > first]
    if questions:
        last = questions[-1]
        steps = (index for index in range(last + 2, end) if messages[index]["role"] == "assistant")
        ways += [Shortening(first, last, start) for start in steps]
    return ways


def oldest_turns(number: int) -> list[str]:
    """Return how ``number`` turns that were left out are listed to the client; []: none were."""
    return [f"input ({number} oldest turns)"] if number else []


async def truncated(yard: Yard, request: Request, tail: int = 0) -> tuple[Request, int]:
    """Return ``request`` with a conversation that leaves room for the answer, and the number of turns left out.

    Where no way of shortening is enough, the request is returned as it is: the engine then refuses it.

    Args:
        yard: counts the tokens.
        request: a request with a conversation.
        tail: see ``shortenings``.

    Raises:
        ModelyardError: as ``Yard.tokenize``, but not for a conversation that is too long.
    """
    chat = request.prompt
    assert isinstance(chat, Chat)
    if await _fits(yard, request, chat):
        return request, 0
    ways = shortenings(chat.messages, tail)
    low, high = 0, len(ways)
    while low < high:
        middle = (low + high) // 2
        if await _fits(yard, request, replace(chat, messages=ways[middle].of(chat.messages))):
            high = middle
        else:
            low = middle + 1
    if low == len(ways):
        return request, 0
    shorter = ways[low].of(chat.messages)
    return replace(request, prompt=replace(chat, messages=shorter)), len(chat.messages) - len(shorter)


async def _fits(yard: Yard, request: Request, chat: Chat) -> bool:
    counted = TokenizeRequest(prompt=chat, model=request.model, wait_options=request.wait_options)
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
