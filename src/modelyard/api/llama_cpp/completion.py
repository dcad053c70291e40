"""POST /completion and /infill of llama.cpp's server, and Mistral's POST /v1/fim/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.llama_cpp.encoder import NativeEncoder
from modelyard.api.llama_cpp.schema import FimRequest, InfillRequest, NativeCompletionRequest, NativeFields
from modelyard.api.openai.chat_encoder import ChatEncoder
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.schema import ChatCompletionRequest, StreamOptions
from modelyard.api.services import Services
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.requests import Request

router = APIRouter(route_class=JsonRoute)


@router.post("/completion", response_model=None)
async def complete(body: NativeCompletionRequest, http: HttpRequest) -> Response:
    """Continue texts in llama.cpp's own shape, whole or as a stream."""
    requests = await RequestBody.of(http.scope).converted(body.to_requests)
    prompt = body.prompt
    has_several = len(requests) > body.choices
    prompts = [
        prompt[index // body.choices] if has_several and isinstance(prompt, list) else prompt
        for index in range(len(requests))
    ]
    return await _respond(body, requests, prompts, http)


@router.post("/infill", response_model=None)
async def infill(body: InfillRequest, http: HttpRequest) -> Response:
    """Fill a gap in a text, by models that were trained for it."""
    requests = await RequestBody.of(http.scope).converted(body.to_requests)
    return await _respond(body, requests, [body.prompt] * len(requests), http)


async def _respond(body: NativeFields, requests: list[Request], prompts: list[Any], http: HttpRequest) -> Response:
    services, options = Services.of(http), wait_options_of(http, body.keep_alive)
    choices = []
    for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
        loaded = await services.media.loaded(replace(request, wait_options=options), http.receive)
        choices.append(ChoiceRequest(loaded, NativeEncoder(body, loaded, prompt, services.yard.profile, index)))
    return respond(services.yard, choices, stream=bool(body.stream))


@router.post("/v1/fim/completions", response_model=None)
async def fill_in_the_middle(body: FimRequest, http: HttpRequest) -> Response:
    """Fill a gap in a text, in Mistral's shape: the answer is that of a chat."""
    options = wait_options_of(http, body.keep_alive)
    requests = [
        replace(request, wait_options=options)
        for request in await RequestBody.of(http.scope).converted(body.to_requests)
    ]
    # Mistral's streams always end with the usage.
    usage = StreamOptions(include_usage=True)
    answered = ChatCompletionRequest.model_construct(
        messages=[],
        n=body.n,
        stream_options=usage,
        timings_per_token=body.timings_per_token,
        return_progress=body.return_progress,
    )
    identity, no_chat = Identity("cmpl"), Chat(())
    choices = [
        ChoiceRequest(request, ChatEncoder(answered, no_chat, identity, index))
        for index, request in enumerate(requests)
    ]
    return respond(Services.of(http).yard, choices, stream=bool(body.stream))
