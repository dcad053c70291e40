"""GET /v1/models and /v1/models/{id}; and the reference's POST /v1/models/unload, /reload, /status."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.openai.schema import LONGEST_NAME
from modelyard.yard.yard import ModelStatus, Yard


class ModelName(BaseModel):
    """The body of the reference's three management calls."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model_id: str = Field(min_length=1, max_length=LONGEST_NAME, description="Id or alias of a model.")


def model_object(model: ModelStatus) -> dict[str, Any]:
    """A model in OpenAI's shape with the reference's and our fields; what is not known is left out."""
    known = {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "local",
        "status": model.status,
        "aliases": list(model.aliases),
        "context_length": model.context_length,
        "quantization": model.quantization,
        "size_bytes": model.size_bytes,
        "default": model.is_default or None,
        "error": model.reason,
    }
    return {key: value for key, value in known.items() if value is not None}


def status_object(name: str, model: ModelStatus) -> dict[str, Any]:
    """The reference's ModelStatusResponse: the name as it was asked for, and the state of what it means."""
    answer = {"model_id": name, "status": model.status}
    return answer if model.reason is None else {**answer, "error": model.reason}


def model_routes(yard: Yard) -> APIRouter:
    """The model endpoints on ``yard``."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """All models, loaded or not, in the order of the configuration."""
        return {"object": "list", "data": [model_object(model) for model in yard.models()]}

    # An id may hold slashes.
    @router.get("/v1/models/{model_id:path}")
    async def retrieve_model(model_id: str) -> dict[str, Any]:
        """One model, by id or alias."""
        return model_object(yard.model(model_id))

    @router.post("/v1/models/unload")
    async def unload_model(body: ModelName) -> dict[str, Any]:
        """Free a model's memory once its running requests have ended. Idempotent."""
        return status_object(body.model_id, await yard.unload(body.model_id))

    @router.post("/v1/models/reload")
    async def reload_model(body: ModelName) -> dict[str, Any]:
        """Have a model loaded. Idempotent."""
        return status_object(body.model_id, await yard.reload(body.model_id))

    @router.post("/v1/models/status")
    async def model_status(body: ModelName) -> dict[str, Any]:
        """Where a model is."""
        return status_object(body.model_id, yard.model(body.model_id))

    return router
