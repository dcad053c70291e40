"""What is sent for a conversation, and what is left out of one that fills the model's context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelyard.cli.chat.conversation import Conversation
from modelyard.cli.chat.settings import request_fields

CHAT_PATH: Final = "/v1/chat/completions"
TEXT_PATH: Final = "/v1/completions"

# A model without a chat template may go on until its context is full.
TEXT_MAX_TOKENS: Final = 256

# Share of the context that is kept for the answer, and the characters that a token has at least, in most texts.
_ANSWER_SHARE: Final = 4
_MIN_CHARS_OF_TOKEN: Final = 2


def answer_request(
    conversation: Conversation,
    model: str,
    settings: Mapping[str, Any],
    *,
    is_chat: bool,
    thinks: bool | None = None,
    schema: Mapping[str, Any] | str | None = None,
    uses_tools: bool = True,
) -> tuple[str, dict[str, Any]]:
    """Return the path and the body of a request for an answer.

    Args:
        conversation: ends with the user's message.
        model: its id.
        settings: values of settings by name.
        is_chat: whether the model has a chat template; otherwise it continues the text of the conversation.
        thinks: whether the model is to think; None: it decides.
        schema: JSON schema of the answer, or "json" for any JSON object.
        uses_tools: whether the model may call the server's tools.
    """
    body: dict[str, Any] = {"model": model, **request_fields(settings, chat=is_chat)}
    if schema is not None:
        body["response_format"] = (
            {"type": "json_object"}
            if isinstance(schema, str)
            else {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        )
    if not is_chat:
        return TEXT_PATH, {"max_tokens": TEXT_MAX_TOKENS, **body, "prompt": conversation.document()}
    if thinks is not None:
        body["enable_thinking"] = thinks
    if not uses_tools:
        body["tool_choice"] = "none"
    return CHAT_PATH, {**body, "messages": conversation.messages()}


def tokens_request(conversation: Conversation, model: str, *, is_chat: bool) -> dict[str, Any]:
    """Return the body of a request for the number of tokens of a conversation."""
    if not is_chat:
        return {"model": model, "prompt": conversation.document()}
    return {"model": model, "messages": conversation.messages()}


def answer_room(context_length: int, max_tokens: int | None) -> int:
    """Return how many tokens of the context are kept for an answer: what it may have, at most a quarter."""
    share = context_length // _ANSWER_SHARE
    return share if max_tokens is None or max_tokens < 0 else min(share, max_tokens)


def may_be_full(context_length: int, max_tokens: int | None, used_tokens: int, added: str) -> bool:
    """Whether a prompt may leave too little room for an answer, so that its tokens are worth counting.

    Args:
        context_length: tokens of a prompt and its answer.
        max_tokens: limit of the answer.
        used_tokens: tokens of the conversation before the last message.
        added: text of the last message.
    """
    most = used_tokens + len(added.encode()) // _MIN_CHARS_OF_TOKEN
    return most > context_length - answer_room(context_length, max_tokens)
