"""How a conversation that is too long is shortened."""

from __future__ import annotations

import tracemalloc
from typing import Any

from modelyard.api.openai.responses.truncation import shortenings


def talk(roles: str) -> list[dict[str, Any]]:
    """A conversation of the roles ``s``, ``u``, ``a`` and ``t``, each with its number as content."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[role], "content": str(number)} for number, role in enumerate(roles)]


def left(roles: str, tail: int = 0) -> list[str]:
    messages = talk(roles)
    return ["".join(message["content"] for message in way.of(messages)) for way in shortenings(messages, tail)]


def test_earlier_questions_go_first_and_then_the_earliest_calls_of_the_last() -> None:
    assert left("suauatatata") == ["0345678910", "03678910", "038910", "0310"]


def test_messages_of_the_tail_stay_and_are_no_question() -> None:
    assert left("uauatau", tail=1) == ["23456", "256"]


def test_the_ways_of_shortening_a_conversation_take_memory_by_its_length() -> None:
    messages = talk("ua" * 5000)
    tracemalloc.start()
    try:
        ways = shortenings(messages)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ways) == 4999
    # All results at once would take 200 MB.
    assert peak < 4_000_000
