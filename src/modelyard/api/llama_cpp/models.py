"""GET /models, POST /models/load and /models/unload, compatible with the router of llama.cpp's server.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, "Using multiple models".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson
from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.models import input_modalities, memory_fields
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.services import Services
from modelyard.api.serving.ignored_fields import report_ignored
from modelyard.errors import UnsupportedOperation
from modelyard.yard.additions import Additions
from modelyard.yard.stats.status import ModelStatus, Status

_STATUS: Final[dict[Status, str]] = {"loaded": "loaded", "reloading": "loading", "unloaded": "unloaded"}

# Kind of model -> output modality, if that is not text.
_OUTPUT: Final[Mapping[str, str]] = {"embedding": "embeddings", "rerank": "scores"}


class LoadBody(BaseModel):
    """The body of requests that name a model."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str = Field(min_length=1, max_length=MAX_NAME_LENGTH, description="Id or alias of a model.")


def router_status(model: ModelStatus) -> str:
    """Return the status of a model by the router's names. A parked model corresponds to llama.cpp's sleeping one."""
    if model.progress is not None and model.progress.step == "downloading":
        return "downloading"
    return "sleeping" if model.is_parked else _STATUS[model.status]


def router_object(model: ModelStatus) -> dict[str, Any]:
    """Return a model in the shape of llama.cpp's router, without the paths of its files."""
    status: dict[str, Any] = {"value": router_status(model)}
    if model.reason is not None:
        status["failed"] = True
    return {
        "id": model.id,
        "object": "model",
        "owned_by": "local",
        "created": model.created,
        "aliases": list(model.aliases),
        "status": status,
        "architecture": {
            "input_modalities": input_modalities(model),
            "output_modalities": [_OUTPUT.get(model.kind or "text", "text")],
        },
        **{name: size for name, size in memory_fields(model).items() if size is not None},
    }


router = APIRouter()


@router.get("/models")
async def list_router_models(http: HttpRequest) -> Response:
    """All models, loaded or not."""
    models = [router_object(model) for model in Services.of(http).yard.models()]
    return Response(orjson.dumps({"object": "list", "data": models}), media_type="application/json")


@router.post("/models/load")
@needs("admin")
async def load_model(body: LoadBody, http: HttpRequest) -> dict[str, Literal[True]]:
    """Load a model; the answer follows when it is loaded. Idempotent."""
    report_ignored(http.scope, body)
    await Services.of(http).yard.reload(body.model)
    return {"success": True}


@router.post("/models/unload")
@needs("admin")
async def unload_router_model(body: LoadBody, http: HttpRequest) -> dict[str, Literal[True]]:
    """Free a model's memory after its requests are done. Idempotent."""
    report_ignored(http.scope, body)
    additions: Additions | None = http.app.state.additions
    if additions is None or not await additions.cancel(body.model):
        await Services.of(http).yard.unload(body.model)
    return {"success": True}


@router.post("/models")
@needs("admin", all_models=True)
async def download_router_model(body: LoadBody, http: HttpRequest) -> dict[str, Literal[True]]:
    """Begin to download a model of the Hugging Face Hub; ``/models/unload`` gives it up."""
    report_ignored(http.scope, body)
    await _additions(http).pull(body.model, waits=False)
    return {"success": True}


@router.delete("/models")
@needs("admin", all_models=True)
async def delete_router_model(
    http: HttpRequest, model: str = Query(max_length=MAX_NAME_LENGTH)
) -> dict[str, Literal[True]]:
    """Remove a model that was added, and what was downloaded for it alone."""
    await _additions(http).delete(model)
    return {"success": True}


def _additions(http: HttpRequest) -> Additions:
    additions: Additions | None = http.app.state.additions
    if additions is None:
        what = "fetches" if http.method == "POST" else "deletes"
        raise UnsupportedOperation(
            f"{http.method} /models: this server {what} no models on request. Add the model to [[models]] in the "
            "configuration, or remove it there, and POST /v1/config/reload; `modelyard rm` frees the disk.",
            "model",
        )
    return additions
