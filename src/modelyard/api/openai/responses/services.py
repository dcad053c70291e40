"""What the endpoints of responses and conversations share."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from fastapi import Request as HttpRequest

from modelyard.api.openai.responses.background import Background
from modelyard.api.openai.responses.history import Conversation, conversation_of
from modelyard.api.openai.responses.items import Item, listed_item
from modelyard.api.openai.responses.records import Record
from modelyard.api.openai.responses.schema import CompactRequest, ConversationFields, PromptFields
from modelyard.api.openai.responses.store import ResponseStore
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.request_servers import ToolNames
from modelyard.errors import ConversationNotFound, InvalidRequest, ResponseNotFound

logger = logging.getLogger(__name__)

MAX_CONVERSATION_ITEMS: Final = 10_000
"""Items of one conversation: as many as one request may have."""

MAX_REFERENCES: Final = 512
"""References among the items of one request: each may be to another stored record, which is read as a whole."""


MAX_CLOSE_S: Final = 10.0
"""How long the end of a server waits for what is still to be stored."""


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

    async def aclose(self) -> None:
        """End the responses in the background, and close the store. A later use opens it again."""
        await self.background.aclose()
        if not threading.main_thread().is_alive():
            # The interpreter exits, where asyncio has no thread left that could wait.
            self.store.close_at_exit()
            return
        try:
            async with asyncio.timeout(MAX_CLOSE_S):
                await asyncio.to_thread(self.store.close)
        except TimeoutError:
            logger.warning("Responses are still being stored %g s after the server has ended.", MAX_CLOSE_S)


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a request, with what was said before it.

    Attributes:
        before: the items of the earlier response or of the conversation.
        items: the items of the request, as they are listed.
        conversation: all of them as turns.
        is_long: whether so much of it was stored that no work on all of it may hold up the event loop.
    """

    before: Sequence[Mapping[str, Any]]
    items: Sequence[Mapping[str, Any]]
    conversation: Conversation
    is_long: bool


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


async def input_of(body: ConversationFields, http: HttpRequest, names: ToolNames = MappingProxyType({})) -> Input:
    """Return the input of ``body`` with what was said before it; ``names`` as for ``conversation_of``.

    Raises:
        ResponseNotFound, ConversationNotFound: what it continues is not stored.
        InvalidRequest: an item lacks a field, the conversation is full, or there are too many references.
    """
    continued = "conversation"
    before: Sequence[Mapping[str, Any]] = ()
    if body.previous_response_id is not None:
        before, continued = (await found_response(body.previous_response_id, http)).context, "previous_response_id"
    elif isinstance(body, PromptFields) and body.conversation is not None:
        before = (await found_conversation(body.conversation.id, http)).items
    # A conversation that is compacted does not grow, however full it is.
    if not isinstance(body, CompactRequest):
        check_room(len(before) + len(body.input), continued)
    referenced = await referenced_items(body.input, "input", http)
    # What is stored may be long where the body is short.
    is_long = is_much(before) or is_much(referenced.values())

    def convert() -> Input:
        items = resolved(body.input, referenced)
        conversation = conversation_of(map(Item.model_validate, before), items, names=names)
        return Input(before, [listed_item(item) for item in items], conversation, is_long)

    return await RequestBody.of(http.scope).converted(convert, is_long=is_long)


def check_room(number: int, param: str = "conversation") -> None:
    """Refuse to let a conversation grow to more than ``MAX_CONVERSATION_ITEMS``.

    Raises:
        InvalidRequest: it would have ``number`` items; ``param`` is the field that it is continued with.
    """
    if number > MAX_CONVERSATION_ITEMS:
        raise InvalidRequest(
            f"The conversation would have {number} items; {MAX_CONVERSATION_ITEMS} are the most. Begin a new one with "
            "what is still needed, or with the answer of /v1/responses/compact.",
            param,
        )


def extended(record: Record, items: Sequence[Mapping[str, Any]]) -> Record:
    """Return a conversation with further items at its end.

    Raises:
        InvalidRequest: it would be too long.
    """
    check_room(len(record.items) + len(items))
    return replace(record, items=[*record.items, *items])


def is_much(items: Iterable[Mapping[str, Any]]) -> bool:
    """Whether stored items have so many parts, or such long ones, that converting them takes more than milliseconds."""
    parts = 0
    for item in items:
        parts += sum(map(_parts_of, item.values()))
        if parts > _MAX_INLINE_PARTS:
            return True
    return False


def _parts_of(value: Any) -> int:
    if isinstance(value, str):
        return 1 + len(value) // _PART_CHARS
    if isinstance(value, list):
        return 1 + sum(_parts_of(part.get("text") if isinstance(part, dict) else part) for part in value)
    return 1


_PART_CHARS: Final = 4096
"""Characters of a text that take as long as one more part."""

_MAX_INLINE_PARTS: Final = 500
"""Fields and parts of stored items that are converted on the event loop: that takes a millisecond or two."""


async def referenced_items(items: Sequence[Item], param: str, http: HttpRequest) -> Mapping[str, Mapping[str, Any]]:
    """Return the stored items that references among ``items`` stand for, by their ids.

    Raises:
        InvalidRequest: there are more than ``MAX_REFERENCES``; ``param`` is the field of the items.
    """
    ids = [item.id for item in items if item.type == "item_reference" and item.id is not None]
    if len(ids) > MAX_REFERENCES:
        raise InvalidRequest(
            f"'{param}' has {len(ids)} items of the type item_reference; {MAX_REFERENCES} are the most. Send the items "
            "themselves, or continue with 'previous_response_id' or 'conversation'.",
            param,
        )
    return await ResponseServices.of(http).store.items(ids, owner_of(http)) if ids else {}


def resolved(items: Iterable[Item], referenced: Mapping[str, Mapping[str, Any]]) -> list[Item]:
    """Return ``items`` with those that references stand for; a reference to an unknown item stays."""
    return [_resolved(item, referenced) for item in items]


def _resolved(item: Item, referenced: Mapping[str, Mapping[str, Any]]) -> Item:
    found = referenced.get(item.id or "") if item.type == "item_reference" else None
    return item if found is None else Item.model_validate(found)
