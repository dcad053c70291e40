"""Pages of lists, as OpenAI's endpoints return them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from modelyard.api.openapi.answers_responses import InputItems
from modelyard.errors import InvalidRequest

Order = Literal["asc", "desc"]


def page_of(items: Sequence[Mapping[str, Any]], after: str | None, limit: int, order: Order) -> InputItems:
    """Return one page of ``items``, which are oldest first.

    Args:
        items: all items, each with an id.
        after: id of the last item of the page before; None: the first page.
        limit: number of items.
        order: "desc" lists the newest first.

    Raises:
        InvalidRequest: no item has the id ``after``.

    Source: https://platform.openai.com/docs/api-reference/responses/input-items.
    """
    ordered = list(items) if order == "asc" else list(reversed(items))
    begin = 0
    if after is not None:
        found = next((index for index, item in enumerate(ordered) if item.get("id") == after), None)
        if found is None:
            raise InvalidRequest(f"'after': there is no item '{after}'. Give the last_id of the page before.", "after")
        begin = found + 1
    page = [dict(item) for item in ordered[begin : begin + limit]]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {
        "object": "list",
        "data": page,
        "first_id": first,
        "last_id": last,
        "has_more": begin + limit < len(ordered),
    }
