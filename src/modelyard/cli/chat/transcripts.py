"""Conversations as JSON that can be read back, and as files for people and other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from modelyard.cli.chat.conversation import Attachment, Conversation, Turn

_VERSION: Final = 1


class UnreadableConversation(ValueError):
    """A file is no conversation that was saved."""


def to_saved(conversation: Conversation, model: str) -> bytes:
    """Return a conversation as JSON that ``from_saved`` reads."""
    fields = {"modelyard_conversation": _VERSION, "model": model, **asdict(conversation)}
    return json.dumps(fields, ensure_ascii=False, indent=1).encode()


def from_saved(data: bytes) -> tuple[Conversation, str]:
    """Return a saved conversation, and the id of the model that it was held with.

    Raises:
        UnreadableConversation: the data is something else.
    """
    try:
        fields = json.loads(data)
        if fields["modelyard_conversation"] != _VERSION:
            raise UnreadableConversation("it is of another version of Modelyard")
        turns = tuple(_turn(turn) for turn in fields["turns"])
        left_out = min(max(0, int(fields["left_out"])), max(0, len(turns) - 1))
        system = None if fields["system"] is None else str(fields["system"])
        return Conversation(system, turns, left_out), str(fields["model"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, UnreadableConversation):
            raise
        raise UnreadableConversation("it is no conversation that /save wrote") from error


def _turn(fields: Mapping[str, Any]) -> Turn:
    if fields["role"] not in ("user", "assistant"):
        raise UnreadableConversation(f"it has a turn of '{fields['role']}'")
    attachments = tuple(_attachment(each) for each in fields["attachments"])
    return Turn(
        fields["role"],
        str(fields["text"]),
        str(fields["reasoning"]),
        attachments,
        str(fields["model"]),
        is_partial=bool(fields["is_partial"]),
    )


def _attachment(fields: Mapping[str, Any]) -> Attachment:
    if fields["kind"] not in ("image", "audio"):
        raise UnreadableConversation(f"it has an attachment of the kind '{fields['kind']}'")
    return Attachment(fields["kind"], str(fields["name"]), str(fields["url"]))


def to_json(conversation: Conversation, model: str) -> str:
    """Return a conversation in the shape of OpenAI's requests, with the reasoning of answers beside their content."""
    system = [] if conversation.system is None else [{"role": "system", "content": conversation.system}]
    messages = [
        {**turn.message(), **({"reasoning_content": turn.reasoning} if turn.reasoning else {})}
        for turn in conversation.turns
    ]
    return json.dumps({"model": model, "messages": system + messages}, ensure_ascii=False, indent=2) + "\n"


def to_markdown(conversation: Conversation, model: str) -> str:
    """Return a conversation as Markdown, each turn under a heading, reasoning as a quotation."""
    parts = [f"# Conversation with {model}"]
    if conversation.system is not None:
        parts += ["## System", conversation.system]
    for turn in conversation.turns:
        parts.append("## You" if turn.role == "user" else f"## {turn.model or model}")
        parts += [f"*{attachment.kind}: {attachment.name}*" for attachment in turn.attachments]
        if turn.reasoning:
            parts.append("\n".join(f"> {line}".rstrip() for line in turn.reasoning.strip().split("\n")))
        parts.append(turn.text.strip("\n") + (" *(stopped)*" if turn.is_partial else ""))
    return "\n\n".join(parts) + "\n"


EXPORTS: Final[Mapping[str, Callable[[Conversation, str], str]]] = {".md": to_markdown, ".json": to_json}
"""What writes a file, by its ending."""


def last_code(text: str) -> str | None:
    """Return the last fenced block of code in a text; None: it has none."""
    from markdown_it import MarkdownIt

    fences = [token.content for token in MarkdownIt("commonmark").parse(text) if token.type == "fence"]
    return fences[-1] if fences else None
