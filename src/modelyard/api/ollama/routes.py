"""Ollama's endpoints."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.agent.offer import agent_request, with_kept_turns
from modelyard.api.middleware.authorization import needs
from modelyard.api.ollama.any_type import AnyTypeJsonRoute, AnyTypeRoute
from modelyard.api.ollama.encoder import OllamaEncoder, durations
from modelyard.api.ollama.model_text import parameter_size, parameters_text
from modelyard.api.ollama.schema import ChatRequest, EmbeddingsRequest, EmbedRequest, GenerateRequest, NamedModel
from modelyard.api.openai.embeddings import check_dimensions
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.api.serving.agent import AgentChoice, respond_agent
from modelyard.api.serving.ignored_fields import report_ignored
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.server_tools import server_tools
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.errors import InvalidRequest, ModelNotFound, PermissionDenied
from modelyard.protocol.prompts import Text
from modelyard.yard.requests.requests import EmbeddingRequest, Request
from modelyard.yard.stats.status import ModelStatus
from modelyard.yard.yard import Yard

# The version of Ollama whose API is implemented: clients require a minimum version.
API_VERSION: Final = "0.13.0"

# The reported lifetime of a model that is never unloaded for being idle: a year.
NO_EXPIRY_S: Final = 365 * 86400.0

_TAG: Final = ":latest"


router = APIRouter(prefix="/api", route_class=AnyTypeRoute)
json_router = APIRouter(prefix="/api", route_class=AnyTypeJsonRoute)


@router.get("/version")
async def version() -> dict[str, str]:
    """The version of Ollama's API that is implemented."""
    return {"version": API_VERSION}


@router.get("/tags")
async def list_models(http: HttpRequest) -> dict[str, Any]:
    """All models, loaded or not."""
    return {"models": [_model_entry(model) for model in Services.of(http).yard.models()]}


@router.get("/ps")
async def list_loaded_models(http: HttpRequest) -> dict[str, Any]:
    """The models that are loaded, and those that are parked."""
    models = Services.of(http).yard.models()
    return {"models": [_loaded_entry(model) for model in models if model.status == "loaded" or model.is_parked]}


@router.post("/show")
@needs("read")
async def show_model(body: NamedModel, http: HttpRequest) -> dict[str, Any]:
    """One model."""
    report_ignored(http.scope, body)
    yard = Services.of(http).yard
    return _model_details(yard.model(model_id_of(yard, body.model or body.name)))


@json_router.post("/chat", response_model=None)
async def chat(body: ChatRequest, http: HttpRequest) -> Response:
    """Answer a conversation; without one, load the model or unload it."""
    services = Services.of(http)
    name = model_id_of(services.yard, body.model)
    if not body.messages:
        return await _load_or_unload(name, body, http, {"message": {"role": "assistant", "content": ""}})
    request = await RequestBody.of(http.scope).converted(lambda: body.to_request(body.chat()))
    request = await services.media.loaded(replace(request, model=name), http.receive)
    request = replace(request, wait_options=wait_options_of(http, body.keep_alive))
    tools = server_tools(http, services.yard, services.agent, name)
    asked = agent_request(services.agent, request, tools, services.yard.config)
    if asked is None:
        return _generate(with_kept_turns(services.agent, request), body, http, is_chat=True)
    choice = AgentChoice(asked, OllamaEncoder(request.prompt, body.model, is_chat=True))
    return respond_agent(services.yard, services.agent, [choice], stream=body.streams)


@json_router.post("/generate", response_model=None)
async def generate(body: GenerateRequest, http: HttpRequest) -> Response:
    """Answer a prompt; without one, load the model or unload it."""
    services = Services.of(http)
    name = model_id_of(services.yard, body.model)
    if not body.prompt:
        return await _load_or_unload(name, body, http, {"response": ""})
    request = body.to_request(body.to_prompt(can_chat=services.yard.model(name).can_chat is not False))
    request = await services.media.loaded(replace(request, model=name), http.receive)
    request = replace(request, wait_options=wait_options_of(http, body.keep_alive))
    return _generate(request, body, http, is_chat=False)


def _generate(request: Request, body: ChatRequest | GenerateRequest, http: HttpRequest, *, is_chat: bool) -> Response:
    encoder = OllamaEncoder(request.prompt, body.model, is_chat=is_chat)
    return respond(Services.of(http).yard, [ChoiceRequest(request, encoder)], stream=body.streams)


@json_router.post("/embed", response_model=None)
async def embed(body: EmbedRequest, http: HttpRequest) -> Response:
    """Turn texts into vectors; without one, load the model or unload it."""
    yard = Services.of(http).yard
    name, texts = model_id_of(yard, body.model), body.texts()
    if not texts:
        return await _load_or_unload(name, body, http, {"embeddings": []})
    options = wait_options_of(http, body.keep_alive)
    request = EmbeddingRequest(texts, name, options, truncates=body.truncate is not False)
    return JsonResponse(partial(_embed, yard, request, body, RequestContext.of(http.scope)))


async def _embed(yard: Yard, request: EmbeddingRequest, body: EmbedRequest, context: RequestContext) -> bytes:
    """Compute the body of /api/embed."""
    embeddings = await yard.embed(request)
    check_dimensions(embeddings, body.dimensions or None)
    times = context.times
    assert times is not None
    spent = durations(times)
    answer = {
        "model": body.model or request.model,
        "embeddings": embeddings.vectors,
        "total_duration": spent["total_duration"],
        "load_duration": spent["load_duration"],
        "prompt_eval_count": embeddings.prompt_tokens,
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


@json_router.post("/embeddings", response_model=None)
async def embed_one(body: EmbeddingsRequest, http: HttpRequest) -> Response:
    """Turn a text into a vector; without one, load the model or unload it."""
    yard = Services.of(http).yard
    name = model_id_of(yard, body.model)
    if not body.prompt:
        return await _load_or_unload(name, body, http, {"embedding": []})
    options = wait_options_of(http, body.keep_alive)
    request = EmbeddingRequest((Text(body.prompt),), name, options, truncates=True)
    return JsonResponse(partial(_embed_one, yard, request))


async def _embed_one(yard: Yard, request: EmbeddingRequest) -> bytes:
    """Compute the body of /api/embeddings."""
    vectors = (await yard.embed(request)).vectors
    return orjson.dumps({"embedding": vectors[0]}, option=orjson.OPT_SERIALIZE_NUMPY)


async def _load_or_unload(
    name: str,
    body: ChatRequest | GenerateRequest | EmbedRequest | EmbeddingsRequest,
    http: HttpRequest,
    empty_answer: dict[str, Any],
) -> Response:
    """Answer a request without a prompt: ``keep_alive`` 0 unloads the model, anything else loads it."""
    yard = Services.of(http).yard
    if body.keep_alive == 0:
        if not RequestContext.of(http.scope).caller.may("admin"):
            raise PermissionDenied("This API key may not unload models: it needs the scope 'admin'.")
        await yard.unload(name)
        reason = "unload"
    else:
        await yard.reload(name)
        reason = "load"
    answer = {"model": body.model or name, "created_at": _now(), **empty_answer, "done": True, "done_reason": reason}
    streams = isinstance(body, ChatRequest | GenerateRequest) and body.streams
    media_type = "application/x-ndjson" if streams else "application/json"
    return Response(orjson.dumps(answer) + (b"\n" if streams else b""), media_type=media_type)


def model_id_of(yard: Yard, name: str | None) -> str:
    """Return the id of the model that ``name`` refers to. Ollama's clients append ":latest" to names without a tag.

    Raises:
        InvalidRequest: the name is missing.
        ModelNotFound: there is no such model.
    """
    if not name:
        raise InvalidRequest("'model' is missing. Name one of those at /api/tags.", "model")
    try:
        return yard.model(name).id
    except ModelNotFound:
        if not name.endswith(_TAG):
            raise
        return yard.model(name.removesuffix(_TAG)).id


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _model_entry(model: ModelStatus) -> dict[str, Any]:
    return {
        "name": model.id,
        "model": model.id,
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
        "size": model.size_bytes or 0,
        "digest": hashlib.sha256(model.id.encode()).hexdigest(),
        "details": _details(model),
    }


def _details(model: ModelStatus) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.architecture or "",
        "families": [model.architecture] if model.architecture else [],
        "parameter_size": parameter_size(model.parameter_count),
        "quantization_level": model.quantization or "",
    }


def _loaded_entry(model: ModelStatus) -> dict[str, Any]:
    # Clients require a time, also for a model that stays until another one needs its memory.
    expires = datetime.now(UTC) + timedelta(seconds=NO_EXPIRY_S if model.leaves_in_s is None else model.leaves_in_s)
    parked = {"parked": True} if model.is_parked else {}
    device_bytes = sum(model.device_bytes.values())
    return {
        **_model_entry(model),
        # What the model holds: Ollama's clients show it as the size of a running model, and as that of its part on the
        # host what exceeds size_vram. What was measured of devices may exceed what counts against the budgets.
        "size": max(model.resident_bytes or model.size_bytes or 0, device_bytes),
        "size_vram": device_bytes,
        "expires_at": expires.isoformat().replace("+00:00", "Z"),
        "context_length": model.context_length or 0,
        **parked,
    }


def _model_details(model: ModelStatus) -> dict[str, Any]:
    model_info: dict[str, Any] = {"general.architecture": model.architecture or ""}
    if model.context_length:
        model_info[f"{model.architecture}.context_length"] = model.context_length
    if model.parameter_count:
        model_info["general.parameter_count"] = model.parameter_count
    return {
        **({"license": model.license} if model.license else {}),
        "modelfile": "",
        "parameters": parameters_text(model.sampling),
        "template": model.chat_template,
        "details": _details(model),
        "model_info": model_info,
        "capabilities": capabilities(model),
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
    }


def capabilities(model: ModelStatus) -> list[str]:
    """Return the capabilities of a model by Ollama's names. Source: Ollama, types/model/capability.go."""
    if model.kind == "embedding":
        return ["embedding"]
    if model.kind == "rerank":
        # Ollama has no name for it.
        return []
    supported = {
        "completion": True,
        # If the chat template does not support tools, the prompt describes them in words.
        "tools": model.can_chat is not False,
        "vision": model.can_see,
        "audio": model.can_hear,
        "thinking": model.can_reason,
        "insert": model.can_fill,
    }
    return [name for name, has_capability in supported.items() if has_capability]
