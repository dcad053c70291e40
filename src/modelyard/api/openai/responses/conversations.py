"""/v1/conversations: lists of items that responses continue and are added to.

Source: https://platform.openai.com/docs/api-reference/conversations.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.responses.calls import new_id
from modelyard.api.openai.responses.history import conversation_of
from modelyard.api.openai.responses.items import Item, listed_item
from modelyard.api.openai.responses.pages import page_of
from modelyard.api.openai.responses.records import Record
from modelyard.api.openai.responses.routes import After, Limit, Ordered
from modelyard.api.openai.responses.services import (
    ResponseServices,
    check_room,
    extended,
    found_conversation,
    is_much,
    owner_of,
    referenced_items,
    resolved,
)
from modelyard.api.serving.bounded_items import MAX_LABELS, Items, at_most
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.errors import ConversationNotFound

Metadata = Annotated[dict[str, str], Field(max_length=MAX_LABELS), at_most(MAX_LABELS)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)


class ConversationCreate(_Body):
    """The body of ``POST /v1/conversations``."""

    items: Items[Item] | None = Field(default=None, description="The first items of the conversation.")
    metadata: Metadata | None = Field(default=None, description="Stored with the conversation.")


class ConversationUpdate(_Body):
    """The body of ``POST /v1/conversations/{conversation_id}``."""

    metadata: Metadata | None = Field(default=None, description="Replaces the stored one; null: there is none.")


class ItemsCreate(_Body):
    """The body of ``POST /v1/conversations/{conversation_id}/items``."""

    items: Items[Item] = Field(description="The items that are added at the end.")


router = APIRouter()
json_router = APIRouter(route_class=JsonRoute)


@json_router.post("/v1/conversations", response_model=None)
async def create_conversation(body: ConversationCreate, http: HttpRequest) -> Response:
    """Store a new conversation."""
    items = await _listed(body.items or [], http)
    conversation_id = new_id("conv")
    head = {
        "id": conversation_id,
        "object": "conversation",
        "created_at": int(time.time()),
        "metadata": body.metadata or {},
    }
    await ResponseServices.of(http).store.put(Record(conversation_id, owner_of(http), head, items))
    return _json(head)


@router.get("/v1/conversations/{conversation_id}")
@needs("inference")
async def retrieve_conversation(conversation_id: str, http: HttpRequest) -> Response:
    """A conversation, without its items."""
    return _json((await found_conversation(conversation_id, http)).head)


@json_router.post("/v1/conversations/{conversation_id}", response_model=None)
async def update_conversation(body: ConversationUpdate, http: HttpRequest) -> Response:
    """Replace the metadata of a conversation."""

    def update(record: Record) -> Record:
        return replace(record, head={**record.head, "metadata": body.metadata or {}})

    conversation_id = http.path_params["conversation_id"]
    await found_conversation(conversation_id, http)
    changed = await ResponseServices.of(http).store.change(conversation_id, owner_of(http), update)
    if changed is None:
        raise ConversationNotFound(conversation_id)
    return _json(changed.head)


@router.delete("/v1/conversations/{conversation_id}")
@needs("inference")
async def delete_conversation(conversation_id: str, http: HttpRequest) -> Response:
    """Delete a conversation with its items."""
    await found_conversation(conversation_id, http)
    await ResponseServices.of(http).store.delete(conversation_id, owner_of(http))
    return _json({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.get("/v1/conversations/{conversation_id}/items")
@needs("inference")
async def list_conversation_items(
    conversation_id: str, http: HttpRequest, after: After = None, limit: Limit = 20, order: Ordered = "desc"
) -> Response:
    """The items of a conversation, a page at a time."""
    record = await found_conversation(conversation_id, http)
    return _json(page_of(record.items, after, limit, order))


@json_router.post("/v1/conversations/{conversation_id}/items", response_model=None)
async def create_conversation_items(body: ItemsCreate, http: HttpRequest) -> Response:
    """Add items at the end of a conversation."""
    items = await _listed(body.items, http)

    conversation_id = http.path_params["conversation_id"]
    await found_conversation(conversation_id, http)
    store, add = ResponseServices.of(http).store, partial(extended, items=items)
    if await store.change(conversation_id, owner_of(http), add) is None:
        raise ConversationNotFound(conversation_id)
    return _json(page_of(items, None, max(len(items), 1), "asc"))


@router.get("/v1/conversations/{conversation_id}/items/{item_id}")
@needs("inference")
async def retrieve_conversation_item(conversation_id: str, item_id: str, http: HttpRequest) -> Response:
    """One item of a conversation."""
    return _json(_item(await found_conversation(conversation_id, http), item_id))


@router.delete("/v1/conversations/{conversation_id}/items/{item_id}")
@needs("inference")
async def delete_conversation_item(conversation_id: str, item_id: str, http: HttpRequest) -> Response:
    """Delete one item of a conversation; answers with the conversation."""
    record = await found_conversation(conversation_id, http)
    _item(record, item_id)

    def remove(record: Record) -> Record:
        return replace(record, items=[item for item in record.items if item.get("id") != item_id])

    await ResponseServices.of(http).store.change(conversation_id, owner_of(http), remove)
    return _json(record.head)


def _item(record: Record, item_id: str) -> Mapping[str, Any]:
    """Return the item of that id.

    Raises:
        ConversationNotFound: there is none.
    """
    found = next((item for item in record.items if item.get("id") == item_id), None)
    if found is None:
        raise ConversationNotFound(record.id, item_id)
    return found


async def _listed(items: Sequence[Item], http: HttpRequest) -> list[dict[str, Any]]:
    """Return the items as they are stored.

    Raises:
        InvalidRequest: no response could be generated with one of them, or there are too many.
    """
    check_room(len(items), "items")
    referenced = await referenced_items(items, "items", http)

    def convert() -> list[dict[str, Any]]:
        all_items = resolved(items, referenced)
        conversation_of((), all_items, "items")
        return [listed_item(item) for item in all_items]

    return await RequestBody.of(http.scope).converted(convert, is_long=is_much(referenced.values()))


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
