"""Refuses prompts that are far too long before they are copied for an engine, which takes 0.1 s for 48 MiB. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from modelyard.engine.chat.template import MAX_CONVERSATION_LENGTH
from modelyard.errors import ContextLengthExceeded, ConversationTooLong
from modelyard.protocol.prompts import Chat, Prompt, Text, Written

MAX_TOKEN_CHARACTERS: Final = 1024
"""More characters than a token of any known vocabulary has. An engine, which knows its own, refuses shorter texts."""


def refuse_plain_excess(prompt: Prompt, context_length: int | None) -> None:
    """Refuse a prompt that cannot fit, whatever the vocabulary and the chat template.

    Args:
        prompt: of a request for text.
        context_length: of its model, in tokens; None: not known before it was loaded.

    Raises:
        ConversationTooLong: it is longer than what a chat template may render.
        ContextLengthExceeded: one text in it is longer than the context by far.
    """
    param = "messages" if isinstance(prompt, Chat) else "prompt"
    length = 0
    for text in _texts(prompt):
        if context_length is not None and len(text) >= context_length * MAX_TOKEN_CHARACTERS:
            raise ContextLengthExceeded(context_length, None, param)
        length += len(text)
    if isinstance(prompt, Chat) and length > MAX_CONVERSATION_LENGTH:
        raise ConversationTooLong(length, MAX_CONVERSATION_LENGTH)


def _texts(prompt: Prompt) -> Iterator[str]:
    """Yield the texts that are in the prompt whatever a template does: templates leave out other fields of messages."""
    match prompt:
        case Chat(messages):
            for message in messages:
                content = message.get("content")
                if isinstance(content, str):
                    yield content
                elif isinstance(content, tuple):
                    yield from (part for part in content if isinstance(part, str))
        case Text(text):
            yield text
        case Written(parts):
            yield from (part for part in parts if isinstance(part, str))
