"""The models as resources of MCP: an address for each, and its status as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote

import orjson

from modelyard.api.openai.models import listed_model
from modelyard.api.services import Services
from modelyard.errors import InvalidRequest
from modelyard.yard.stats.status import ModelStatus
from modelyard.yard.yard import Yard

_PREFIX: Final = "modelyard://models/"

TEMPLATE: Final = "modelyard://models/{model_id}"
"""The addresses of all models, as a template of RFC 6570."""

MAX_URI_CHARS: Final = 2048
"""Characters of an address; ids have at most 512, of which each may be escaped."""

PAGE_MODELS: Final = 100
"""Models on one page of the list."""


def uri_of(model: str) -> str:
    """Return the address of ``model``, an id."""
    return _PREFIX + quote(model, safe="")


def name_in(uri: str) -> str | None:
    """Return the id or alias in ``uri``; None: it is no address of a model."""
    if not uri.startswith(_PREFIX) or len(uri) > MAX_URI_CHARS:
        return None
    return unquote(uri.removeprefix(_PREFIX)) or None


def model_at(yard: Yard, uri: str) -> ModelStatus:
    """Return the model at ``uri``.

    Raises:
        InvalidRequest: it is no address of a model.
        ModelNotFound, ModelNotPermitted: there is no such model, or not for this caller.
    """
    name = name_in(uri)
    if name is None:
        raise InvalidRequest(f"'{uri[:200]}' is no address of a model. Write {TEMPLATE}.", "uri")
    return yard.model(name)


def content_of(services: Services, model: ModelStatus) -> str:
    """Return the content of a model's resource: its status as JSON."""
    return orjson.dumps(listed_model(services, model)).decode()


def summary_of(model: ModelStatus) -> str:
    """Return the description of a model in the list of resources."""
    parts = [model.status, model.kind, f"{model.context_length} tokens" if model.context_length else None]
    return ", ".join(str(part) for part in parts if part)


def page_of(models: Sequence[ModelStatus], cursor: str | None) -> tuple[Sequence[ModelStatus], str | None]:
    """Return the models of the page that ``cursor`` names, and the cursor of the next page, if there is one.

    Raises:
        InvalidRequest: it is no cursor of this server.
    """
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 9):
        raise InvalidRequest("'cursor' must be the 'nextCursor' of the page before.", "cursor")
    start = int(cursor or 0)
    end = start + PAGE_MODELS
    return models[start:end], str(end) if end < len(models) else None
