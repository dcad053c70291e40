"""What the endpoints of responses and conversations share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import Request as HttpRequest

from modelyard.api.openai.responses.background import Background
from modelyard.api.openai.responses.items import Conversation, Item, conversation_of, listed_item
from modelyard.api.openai.responses.records import Record
from modelyard.api.openai.responses.schema import ConversationFields, PromptFields
from modelyard.api.openai.responses.store import ResponseStore
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.request_body import RequestBody
from modelyard.errors import ConversationNotFound, InvalidRequest, ResponseNotFound

MAX_CONVERSATION_ITEMS: Final = 10_000
"""Items of one conversation: as many as one request may have."""


@dataclass(frozen=True, slots=True)
class ResponseServices:
    """What the endpoints share, kept as ``app.state.responses``.

    Attributes:
        store: the responses and conversations that can be retrieved later.
        background: the responses that are generated without a client.
    """

    store: ResponseStore
    background: Background

    @staticmethod
    def of(http: HttpRequest) -> ResponseServices:
        """Return the services of the application that ``http`` was sent to."""
        services: ResponseServices = http.app.state.responses
        return services


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a request, with what was said before it.

    Attributes:
        before: the items of the earlier response or of the conversation.
        items: the items of the request, as they are listed.
        conversation: all of them as turns.
    """

    before: Sequence[Mapping[str, Any]]
    items: Sequence[Mapping[str, Any]]
    conversation: Conversation


def owner_of(http: HttpRequest) -> bytes | None:
    """Return the digest of the request's key, which owns what it stores; None without a key."""
    return RequestContext.of(http.scope).caller.owner


async def found_response(response_id: str, http: HttpRequest) -> Record:
    """Return the stored response of that id.

    Raises:
        ResponseNotFound: there is none, or it belongs to another key.
    """
    services, owner = ResponseServices.of(http), owner_of(http)
    # A response that is being generated is newer than what is stored of it. Asked for first: it may end meanwhile.
    live = services.background.response(response_id)
    record = await services.store.find(response_id, owner) if response_id.startswith("resp_") else None
    if record is None:
        raise ResponseNotFound(response_id)
    return record if live is None else replace(record, head=live)


async def found_conversation(conversation_id: str, http: HttpRequest) -> Record:
    """Return the stored conversation of that id.

    Raises:
        ConversationNotFound: there is none, or it belongs to another key.
    """
    is_one = conversation_id.startswith("conv_")
    record = await ResponseServices.of(http).store.find(conversation_id, owner_of(http)) if is_one else None
    if record is None:
        raise ConversationNotFound(conversation_id)
    return record


async def input_of(body: ConversationFields, http: HttpRequest) -> Input:
    """Return the input of ``body`` with what was said before it.

    Raises:
        ResponseNotFound, ConversationNotFound: what it continues is not stored.
        InvalidRequest: an item lacks a field, or the conversation is full.
    """
    before: Sequence[Mapping[str, Any]] = ()
    if body.previous_response_id is not None:
        before = (await found_response(body.previous_response_id, http)).context
    elif isinstance(body, PromptFields) and body.conversation is not None:
        before = (await found_conversation(body.conversation.id, http)).items
        check_room(len(before) + len(body.input))
    items = [await _resolved(item, http) for item in body.input]

    def convert() -> Input:
        earlier = map(Item.model_validate, before)
        return Input(before, [listed_item(item) for item in items], conversation_of(earlier, items))

    # What is stored may be long where the body is short.
    return await RequestBody.of(http.scope).converted(convert, is_long=len(before) > _MAX_INLINE_ITEMS)


def check_room(number: int) -> None:
    """Refuse to let a conversation grow to more than ``MAX_CONVERSATION_ITEMS``.

    Raises:
        InvalidRequest: it would have ``number`` items.
    """
    if number > MAX_CONVERSATION_ITEMS:
        raise InvalidRequest(
            f"The conversation would have {number} items; {MAX_CONVERSATION_ITEMS} are the most. Begin a new one.",
            "conversation",
        )


_MAX_INLINE_ITEMS: Final = 100
"""Stored items that are validated on the event loop: that takes a millisecond or two."""


async def _resolved(item: Item, http: HttpRequest) -> Item:
    """Return the item that a reference stands for; a reference to an unknown item is returned as it is."""
    if item.type != "item_reference" or item.id is None:
        return item
    found = await ResponseServices.of(http).store.item(item.id, owner_of(http))
    return item if found is None else Item.model_validate(found)
