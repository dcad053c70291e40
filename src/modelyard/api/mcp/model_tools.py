"""The tools that list, load and unload models."""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict

from modelyard.api.mcp.tools import Tool, ToolAnswer, ToolCall, tool_answer
from modelyard.api.openai.models import ModelName, Unload, known_status, model_list, status_object


class NoArguments(BaseModel):
    """The arguments of a tool that has none."""

    model_config = ConfigDict(extra="forbid")


async def list_models(call: ToolCall) -> ToolAnswer:
    """Return all models that the caller may see."""
    return _answer(model_list(call.services), ())


async def model_status(call: ToolCall) -> ToolAnswer:
    """Return the status of one model.

    Raises:
        ModelNotFound: no model has that name.
    """
    body, ignored = await call.body(ModelName, call.arguments)
    return _answer(known_status(call.services.yard, body.model_id), ignored)


async def load_model(call: ToolCall) -> ToolAnswer:
    """Load a model.

    Raises:
        ModelyardError: as ``Yard.reload``.
    """
    body, ignored = await call.body(ModelName, call.arguments)
    model = await call.services.yard.reload(body.model_id)
    return _answer(status_object(body.model_id, model), ignored)


async def unload_model(call: ToolCall) -> ToolAnswer:
    """Free a model's memory.

    Raises:
        ModelyardError: as ``Yard.unload``.
    """
    body, ignored = await call.body(Unload, call.arguments)
    model = await call.services.yard.unload(body.model_id, body.mode)
    return _answer(status_object(body.model_id, model), ignored)


def _answer(body: dict[str, Any], ignored: tuple[str, ...]) -> ToolAnswer:
    return tool_answer(orjson.dumps(body), ignored)


MODEL_TOOLS: Final = (
    Tool(
        "list_models",
        "List models",
        "List the models of this server, loaded or not, with what each can do.",
        "read",
        NoArguments,
        list_models,
        is_read_only=True,
        is_idempotent=True,
    ),
    Tool(
        "model_status",
        "Status of a model",
        "Return whether a model is loaded, the memory that it takes, and why its last load failed if it did.",
        "read",
        ModelName,
        model_status,
        listed=("model_id",),
        required=("model_id",),
        is_read_only=True,
        is_idempotent=True,
    ),
    Tool(
        "load_model",
        "Load a model",
        "Load a model, so that its next request begins at once. Models that are not in use may be unloaded for it. "
        "Without this, a model is loaded by its first request.",
        "admin",
        ModelName,
        load_model,
        listed=("model_id",),
        required=("model_id",),
        is_idempotent=True,
    ),
    Tool(
        "unload_model",
        "Unload a model",
        "Free a model's memory. Its next request loads it again.",
        "admin",
        Unload,
        unload_model,
        listed=("model_id", "mode"),
        required=("model_id",),
        is_destructive=True,
        is_idempotent=True,
    ),
)
"""The tools of this file."""
