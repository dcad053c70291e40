"""Puts a model's own system message before conversations that begin with none. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeVar

from modelyard.protocol.prompts import Chat, Prompt

_P = TypeVar("_P", bound=Prompt)

_SYSTEM_ROLES: Final = frozenset({"system", "developer"})


def with_system(prompt: _P, system: str | None) -> _P:
    """Return the prompt with ``system`` as its first message, where it is a conversation without one.

    Args:
        prompt: the prompt of a request.
        system: the model's own system message; None for none.
    """
    if system is None or not isinstance(prompt, Chat):
        return prompt
    if prompt.messages and prompt.messages[0].get("role") in _SYSTEM_ROLES:
        return prompt
    return replace(prompt, messages=({"role": "system", "content": system}, *prompt.messages))
