"""Ollama's endpoints."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from fastapi.routing import APIRoute

from modelyard.api.media.load import MediaLoader
from modelyard.api.middleware.authorization import needs
from modelyard.api.ollama.any_type import TakeAnyType
from modelyard.api.ollama.frames import OllamaFrames
from modelyard.api.ollama.schema import ChatRequest, EmbeddingsRequest, EmbedRequest, GenerateRequest, NamedModel
from modelyard.api.openai.embeddings import check_dimensions
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.errors import InvalidRequest, ModelNotFound, PermissionDenied
from modelyard.protocol.prompts import Text
from modelyard.yard.requests.requests import EmbeddingRequest, Request
from modelyard.yard.stats.status import ModelStatus
from modelyard.yard.yard import Yard

# The version of Ollama whose API this is: clients ask for a least one.
API_VERSION: Final = "0.13.0"

# The largest keep_alive that a datetime holds comes long after.
FOR_EVER_S: Final = 365 * 86400.0

_TAG: Final = ":latest"


def ollama_routes(yard: Yard, media: MediaLoader) -> APIRouter:
    """What Ollama's clients ask for, on ``yard``."""
    router = APIRouter(prefix="/api")
    asked = APIRouter(prefix="/api", route_class=JsonRoute)

    @router.get("/version")
    async def version() -> dict[str, str]:
        """The version of Ollama's API that is spoken."""
        return {"version": API_VERSION}

    @router.get("/tags")
    async def list_models() -> dict[str, Any]:
        """All models, loaded or not."""
        return {"models": [_listed(model) for model in yard.models()]}

    @router.get("/ps")
    async def list_loaded_models() -> dict[str, Any]:
        """The models that are loaded."""
        return {"models": [_running(model) for model in yard.models() if model.status == "loaded"]}

    @router.post("/show")
    @needs("read")
    async def show_model(body: NamedModel) -> dict[str, Any]:
        """One model."""
        return _shown(yard.model(named(yard, body.model or body.name)))

    @asked.post("/chat", response_model=None)
    async def chat(body: ChatRequest, http: HttpRequest) -> Response:
        """Answer a conversation; without one, load the model or unload it."""
        name = named(yard, body.model)
        if not body.messages:
            return await _settled(yard, name, body, http, {"message": {"role": "assistant", "content": ""}})
        request = await RequestBody.of(http.scope).converted(lambda: body.to_request(body.chat()))
        request = await media.loaded(replace(request, model=name), http.receive)
        return _reply(yard, request, name, body, http, is_chat=True)

    @asked.post("/generate", response_model=None)
    async def generate(body: GenerateRequest, http: HttpRequest) -> Response:
        """Answer a prompt; without one, load the model or unload it."""
        name = named(yard, body.model)
        if not body.prompt:
            return await _settled(yard, name, body, http, {"response": ""})
        request = body.to_request(body.prompted(can_chat=yard.model(name).can_chat is not False))
        request = await media.loaded(replace(request, model=name), http.receive)
        return _reply(yard, request, name, body, http, is_chat=False)

    @asked.post("/embed", response_model=None)
    async def embed(body: EmbedRequest, http: HttpRequest) -> Response:
        """Turn texts into vectors; without one, load the model or unload it."""
        began_ns = time.monotonic_ns()
        name, texts = named(yard, body.model), body.texts()
        if not texts:
            return await _settled(yard, name, body, http, {"embeddings": []})
        request = EmbeddingRequest(
            texts, name, wait_options_of(http, body.keep_alive), truncates=body.truncate is not False
        )

        async def ask() -> bytes:
            embeddings = await yard.embed(request)
            check_dimensions(embeddings, body.dimensions or None)
            answer = {
                "model": body.model or name,
                "embeddings": embeddings.vectors,
                "total_duration": time.monotonic_ns() - began_ns,
                "load_duration": 0,
                "prompt_eval_count": embeddings.prompt_tokens,
            }
            return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

        return JsonResponse(ask)

    @asked.post("/embeddings", response_model=None)
    async def embed_one(body: EmbeddingsRequest, http: HttpRequest) -> Response:
        """Turn a text into a vector; without one, load the model or unload it."""
        name = named(yard, body.model)
        if not body.prompt:
            return await _settled(yard, name, body, http, {"embedding": []})
        how = wait_options_of(http, body.keep_alive)
        request = EmbeddingRequest((Text(body.prompt),), name, how, truncates=True)

        async def ask() -> bytes:
            vectors = (await yard.embed(request)).vectors
            return orjson.dumps({"embedding": vectors[0]}, option=orjson.OPT_SERIALIZE_NUMPY)

        return JsonResponse(ask)

    router.routes.extend(asked.routes)
    for route in router.routes:
        assert isinstance(route, APIRoute)
        route.app = TakeAnyType(route.app)
    return router


def _reply(
    yard: Yard,
    request: Request,
    name: str,
    body: ChatRequest | GenerateRequest,
    http: HttpRequest,
    *,
    is_chat: bool,
) -> Response:
    request = replace(request, model=name, urgency=wait_options_of(http, body.keep_alive))
    frames = OllamaFrames(request.prompt, body.model, is_chat=is_chat)
    return respond(yard, [ChoiceRequest(request, frames)], stream=body.streams)


async def _settled(
    yard: Yard,
    name: str,
    body: ChatRequest | GenerateRequest | EmbedRequest | EmbeddingsRequest,
    http: HttpRequest,
    said: dict[str, Any],
) -> Response:
    """A request without a prompt: ``keep_alive`` 0 unloads the model, anything else loads it."""
    if body.keep_alive == 0:
        if not RequestContext.of(http.scope).caller.may("admin"):
            raise PermissionDenied("This API key may not unload models: it needs the scope 'admin'.")
        await yard.unload(name)
        reason = "unload"
    else:
        await yard.reload(name)
        reason = "load"
    line = {"model": body.model or name, "created_at": _now(), **said, "done": True, "done_reason": reason}
    streams = isinstance(body, ChatRequest | GenerateRequest) and body.streams
    kind = "application/x-ndjson" if streams else "application/json"
    return Response(orjson.dumps(line) + (b"\n" if streams else b""), media_type=kind)


def named(yard: Yard, name: str | None) -> str:
    """The id that ``name`` means: Ollama's clients write ":latest" behind names that have no tag.

    Raises:
        InvalidRequest: there is no name.
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


def _listed(model: ModelStatus) -> dict[str, Any]:
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
        "parameter_size": "",
        "quantization_level": model.quantization or "",
    }


def _running(model: ModelStatus) -> dict[str, Any]:
    # Else it stays until room is needed for another: clients want a time all the same.
    expires = datetime.now(UTC) + timedelta(seconds=FOR_EVER_S if model.leaves_in_s is None else model.leaves_in_s)
    return {
        **_listed(model),
        "size": model.memory_bytes or model.size_bytes or 0,
        "size_vram": 0,
        "expires_at": expires.isoformat().replace("+00:00", "Z"),
        "context_length": model.context_length or 0,
    }


def _shown(model: ModelStatus) -> dict[str, Any]:
    facts: dict[str, Any] = {"general.architecture": model.architecture or ""}
    if model.context_length:
        facts[f"{model.architecture}.context_length"] = model.context_length
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(model),
        "model_info": facts,
        "capabilities": capabilities(model),
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
    }


def capabilities(model: ModelStatus) -> list[str]:
    """What a model can do, in Ollama's words. Source: Ollama, types/model/capability.go."""
    if model.kind == "embedding":
        return ["embedding"]
    if model.kind == "rerank":
        # Ollama has no word for it.
        return []
    known = {
        "completion": True,
        # One whose template knows no tools is told of them in words.
        "tools": model.can_chat is not False,
        "vision": model.can_see,
        "audio": model.can_hear,
        "thinking": model.can_reason,
        "insert": model.can_fill,
    }
    return [name for name, is_so in known.items() if is_so]
