"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them.

Source: vLLM, docs/features/lora.md, and vllm/entrypoints/openai/protocol.py.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.services import Services
from modelyard.api.serving.ignored_fields import report_ignored
from modelyard.config import Adapter
from modelyard.config.adapter import AdapterName, AdapterScale
from modelyard.errors import InvalidRequest
from modelyard.yard.adapters import load_adapter, unload_adapter

MAX_PATH_LENGTH = 4096

router = APIRouter()


class AdapterRequest(BaseModel):
    """What both requests have: the adapter, and its model."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=(), hide_input_in_errors=True)

    base_model_name: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias of the model. Unset: the default model."
    )


class LoadAdapter(AdapterRequest):
    """The body of ``POST /v1/load_lora_adapter``."""

    lora_name: AdapterName = Field(description="Name of the adapter.")
    lora_path: str = Field(
        min_length=1,
        max_length=MAX_PATH_LENGTH,
        description="Absolute path of its GGUF file, or of its folder as PEFT saves it, on the server's machine.",
    )
    load_inplace: bool = Field(default=False, description="Whether an adapter of the same name is replaced.")
    scale: AdapterScale = Field(default=1.0, description="Factor of what the adapter adds to the weights.")


class UnloadAdapter(AdapterRequest):
    """The body of ``POST /v1/unload_lora_adapter``."""

    lora_name: str = Field(
        min_length=1, max_length=MAX_NAME_LENGTH, description="Name of the adapter, or id of the model with it."
    )


@router.post("/v1/load_lora_adapter", response_model=None)
@needs("admin", all_models=True)
async def load_lora_adapter(body: LoadAdapter, http: HttpRequest) -> Response:
    """Serve a model with one more adapter, until the configuration is read again or the server restarts.

    The model keeps its engine, and its running answers go on.
    """
    report_ignored(http.scope, body)
    path = Path(body.lora_path)
    if not path.is_absolute():
        raise InvalidRequest("lora_path must be an absolute path of the server's machine.", "lora_path")
    adapter = Adapter(name=body.lora_name, path=path, scale=body.scale)
    await load_adapter(Services.of(http).yard, body.base_model_name, adapter, replaces=body.load_inplace)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post("/v1/unload_lora_adapter", response_model=None)
@needs("admin", all_models=True)
async def unload_lora_adapter(body: UnloadAdapter, http: HttpRequest) -> Response:
    """Drop an adapter. Answers that use it go on; later requests for it are refused."""
    report_ignored(http.scope, body)
    await unload_adapter(Services.of(http).yard, body.lora_name, body.base_model_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
