"""Requests of coding agents, in the order in which a server gets them. Pure; the same seed gives the same requests.

All agents begin with the same system prompt and tools. Each has turns with results of tools, beside which it holds side
conversations, and starts a sub-agent every third turn. Once, its history is summarised and replaced by the summary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

# Words that messages are made of, by their numbers.
WORDS = 10_000
SHARED_WORDS = 3_000

# Tokens of a prompt beside its words: the end of a turn, and who speaks.
END = WORDS
_ROLES: dict[Role, int] = {"system": WORDS + 1, "user": WORDS + 2, "assistant": WORDS + 3, "tool": WORDS + 4}

_SUB_AGENT_EVERY, _SUB_AGENT_TURNS = 3, 3
_SIDE_CONVERSATION_EVERY, _SIDE_TURNS = 4, 2
_COMPACTED_AFTER, _KEPT_TURNS = 8, 2


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; its text is given by the numbers of its words."""

    role: Role
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """One request: the conversation so far, and the answer that the next request of the conversation repeats."""

    messages: tuple[Message, ...]
    answer: Message


def agent_trace(seed: int = 0, *, agents: int = 2, turns: int = 12, scale: float = 1.0) -> list[AgentRequest]:
    """Return the requests of ``agents``, which take turns.

    Args:
        seed: of the lengths and words.
        agents: how many there are.
        turns: of each.
        scale: of the lengths of all messages; with 1.0 the beginning that all share has 3,000 words.
    """
    chance = random.Random(seed)
    texts = _Texts(chance, scale)
    shared = texts.message("system", SHARED_WORDS, SHARED_WORDS)
    each = [_agent(texts, shared, turns) for _ in range(agents)]
    requests: list[AgentRequest] = []
    while each:
        for agent in list(each):
            turn = next(agent, None)
            if turn is None:
                each.remove(agent)
            else:
                requests += turn
    return requests


class _Texts:
    def __init__(self, chance: random.Random, scale: float) -> None:
        self._chance, self._scale = chance, scale

    def message(self, role: Role, shortest: int, longest: int) -> Message:
        length = max(1, round(self._chance.randint(shortest, longest) * self._scale))
        return Message(role, tuple(self._chance.randrange(WORDS) for _ in range(length)))


def _agent(texts: _Texts, shared: Message, turns: int) -> Iterator[list[AgentRequest]]:
    """Yield the requests of each turn of one agent."""
    history = [texts.message("user", 50, 150)]
    for turn in range(turns):
        requests = [AgentRequest((shared, *history), texts.message("assistant", 30, 90))]
        history += [requests[0].answer, texts.message("tool", 50, 600)]
        if turn % _SUB_AGENT_EVERY == _SUB_AGENT_EVERY - 1:
            requests += _conversation(texts, shared, "tool", _SUB_AGENT_TURNS)
        if turn % _SIDE_CONVERSATION_EVERY == 1:
            requests += _conversation(texts, shared, "user", _SIDE_TURNS)
        if turn + 1 == _COMPACTED_AFTER:
            summary = texts.message("assistant", 200, 300)
            asked = texts.message("user", 40, 40)
            requests.append(AgentRequest((shared, *history, asked), summary))
            history = [Message("user", summary.words), *history[-2 * _KEPT_TURNS :]]
        yield requests


def _conversation(texts: _Texts, shared: Message, role: Role, turns: int) -> list[AgentRequest]:
    """Return the requests of a conversation of its own, whose later turns are of ``role``."""
    history = [texts.message("user", 50, 250)]
    requests = []
    for _ in range(turns):
        requests.append(AgentRequest((shared, *history), texts.message("assistant", 20, 80)))
        history += [requests[-1].answer, texts.message(role, 50, 400)]
    return requests


def tokens_of(message: Message) -> list[int]:
    """As a chat template writes it: who speaks, what they say, and the token that ends a turn."""
    return [_ROLES[message.role], *message.words, END]


def prompt_of(request: AgentRequest) -> list[int]:
    """With the beginning of the answer, behind which the model goes on."""
    return [*(token for message in request.messages for token in tokens_of(message)), _ROLES["assistant"]]
