"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.anthropic.encoder import MessageEncoder
from modelyard.api.anthropic.schema import CountRequest, MessagesRequest
from modelyard.api.openapi.answers_anthropic import TokenCount
from modelyard.api.services import Services
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.requests import TokenizeRequest

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/messages", response_model=None)
async def create_message(body: MessagesRequest, http: HttpRequest) -> Response:
    """Answer a conversation, whole or as a stream of named events."""
    services = Services.of(http)
    request = await RequestBody.of(http.scope).converted(body.checked)
    request = replace(request, wait_options=wait_options_of(http, body.keep_alive))
    request = await services.media.loaded(request, http.receive)
    assert isinstance(request.prompt, Chat)
    edits = None
    if body.context_management is not None:
        edits = await RequestBody.of(http.scope).converted(body.applied_edits)
    encoder = MessageEncoder(request.prompt, omits_thinking=body.omits_thinking, edits=edits)
    choice = ChoiceRequest(request, encoder)
    return respond(services.yard, [choice], stream=bool(body.stream))


@router.post("/v1/messages/count_tokens", response_model=None)
async def count_tokens(body: CountRequest, http: HttpRequest) -> Response:
    """Count the tokens of a conversation, with its system prompt and its tools."""
    received, options = RequestBody.of(http.scope), wait_options_of(http, body.keep_alive)
    request = replace(await received.converted(body.checked), wait_options=options)
    original = None
    if (unedited := body.unedited()) is not None:
        original = replace(await received.converted(unedited.checked), wait_options=options)
    return JsonResponse(partial(_count, Services.of(http), request, original))


async def _count(services: Services, request: TokenizeRequest, original: TokenizeRequest | None) -> bytes:
    """Compute the body of the answer. ``original`` is the request before edits of its conversation."""
    answer: TokenCount = {"input_tokens": await _length(services, request)}
    if original is not None:
        answer["context_management"] = {"original_input_tokens": await _length(services, original)}
    return orjson.dumps(answer)


async def _length(services: Services, request: TokenizeRequest) -> int:
    return len((await services.yard.tokenize(await services.media.resolved(request))).tokens)
