"""Turns of models that call tools, for scripted engines: calls in the format of Hermes, answered by what was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import OutputFormat

HERMES = OutputFormat("hermes", "", is_open=False)


def call(name: str, /, **arguments: Any) -> str:
    """A call as a model writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def messages_of(submit: Submit) -> Sequence[Mapping[str, Any]]:
    """The conversation that an engine is asked to answer."""
    assert isinstance(submit.prompt, Chat)
    return submit.prompt.messages


def results_of(submit: Submit) -> list[str]:
    """The results of tools in the conversation that an engine is asked to answer."""
    return [str(message["content"]) for message in messages_of(submit) if message["role"] == "tool"]


def turns(*written: str) -> Callable[[Submit], Iterable[str]]:
    """Answers of a scripted engine: one of ``written`` for each turn that the assistant has had, the last one repeated.

    ``{result}`` in it is replaced by the last result of a tool.
    """

    def answer(submit: Submit) -> Iterable[str]:
        number = sum(message["role"] == "assistant" for message in messages_of(submit))
        results = results_of(submit)
        return [written[min(number, len(written) - 1)].replace("{result}", results[-1] if results else "")]

    return answer
