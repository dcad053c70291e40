"""A model's own system message, for conversations that have none."""

from __future__ import annotations

import pytest

from modelyard.protocol.prompts import Chat, Text
from modelyard.yard.requests.system_message import with_system

ASKED = {"role": "user", "content": "Hello"}


def test_it_comes_before_a_conversation_without_one() -> None:
    prompt = with_system(Chat((ASKED,)), "Be brief.")
    assert isinstance(prompt, Chat)
    assert prompt.messages == ({"role": "system", "content": "Be brief."}, ASKED)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_conversation_with_its_own_keeps_it(role: str) -> None:
    prompt = Chat(({"role": role, "content": "Be long."}, ASKED))
    assert with_system(prompt, "Be brief.") is prompt


def test_other_prompts_and_models_are_left_alone() -> None:
    assert with_system(Text("Hello"), "Be brief.") == Text("Hello")
    assert with_system(Chat((ASKED,)), None) == Chat((ASKED,))
