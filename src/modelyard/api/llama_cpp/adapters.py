"""GET and POST /lora-adapters of llama.cpp's server.

Source: llama.cpp, tools/server/README.md.
"""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import Field, RootModel

from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.lora_field import MAX_ADAPTERS, LoraScale
from modelyard.api.openapi.answers_llama_cpp import AdapterEntry
from modelyard.api.services import Services
from modelyard.yard.adapters import apply_scales
from modelyard.yard.stats.status import AdapterStatus

router = APIRouter()


class AdapterScales(RootModel[Annotated[list[LoraScale], Field(max_length=MAX_ADAPTERS)]]):
    """The body of ``POST /lora-adapters``: adapters of the model by their numbers, with scales."""


def adapter_entry(number: int, adapter: AdapterStatus) -> AdapterEntry:
    """Return an adapter in llama.cpp's shape. The folder of its file stays private."""
    return {
        "id": number,
        "path": adapter.file,
        "scale": adapter.applied_scale,
        "task_name": adapter.name,
        "prompt_prefix": "",
    }


@router.get("/lora-adapters")
async def list_adapters(http: HttpRequest, model: str | None = None) -> Response:
    """The adapters of a model, with their scales for requests that name none; without `model`, of the default model."""
    yard = Services.of(http).yard
    adapters = yard.model(yard.configured(model).id).adapters
    entries = [adapter_entry(number, adapter) for number, adapter in enumerate(adapters)]
    return Response(orjson.dumps(entries), media_type="application/json")


@router.post("/lora-adapters", response_model=None)
@needs("admin", all_models=True)
async def apply_adapters(body: AdapterScales, http: HttpRequest, model: str | None = None) -> Response:
    """Set the scales of adapters for requests that name none; those that are not listed get 0."""
    apply_scales(Services.of(http).yard, model, [(each.id, each.scale) for each in body.root])
    return Response(b'{"success":true}', media_type="application/json")
