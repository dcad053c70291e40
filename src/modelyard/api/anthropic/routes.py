"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.agent.offer import agent_request
from modelyard.api.anthropic.encoder import MessageEncoder
from modelyard.api.anthropic.schema import CountRequest, MessagesRequest
from modelyard.api.openapi.answers_anthropic import TokenCount
from modelyard.api.services import Services
from modelyard.api.serving.agent import AgentChoice, respond_agent
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.request_servers import served_tools
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.requests import TokenizeRequest

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/messages", response_model=None)
async def create_message(body: MessagesRequest, http: HttpRequest) -> Response:
    """Answer a conversation, whole or as a stream of named events."""
    async with AsyncExitStack() as connections:
        return await _message(body, http, connections)


async def _message(body: MessagesRequest, http: HttpRequest, connections: AsyncExitStack) -> Response:
    """Return the answer; it takes over ``connections`` to MCP servers where it needs them."""
    services = Services.of(http)
    own, connecting = {tool.name for tool in body.tools or []}, connections if body.may_call_tools else None
    servers = body.named_servers()
    served = await served_tools(http, services.yard, services.agent, body.model, servers, connecting, own)
    request = await RequestBody.of(http.scope).converted(partial(body.checked, served))
    request = replace(request, wait_options=wait_options_of(http, body.keep_alive))
    request = await services.media.loaded(request, http.receive)
    assert isinstance(request.prompt, Chat)
    edits = None
    if body.context_management is not None:
        edits = await RequestBody.of(http.scope).converted(partial(body.applied_edits, served))
    asked = agent_request(services.agent, request, served.tools, services.yard.config)
    encoder = MessageEncoder(request.prompt, omits_thinking=body.omits_thinking, edits=edits)
    if asked is None:
        return respond(services.yard, [ChoiceRequest(request, encoder)], stream=bool(body.stream))
    choice = AgentChoice(asked, encoder)
    return respond_agent(
        services.yard, services.agent, [choice], stream=bool(body.stream), connections=connections.pop_all()
    )


@router.post("/v1/messages/count_tokens", response_model=None)
async def count_tokens(body: CountRequest, http: HttpRequest) -> Response:
    """Count the tokens of a conversation, with its system prompt and its tools."""
    services, received, options = Services.of(http), RequestBody.of(http.scope), wait_options_of(http, body.keep_alive)
    served = await served_tools(http, services.yard, services.agent, body.model, body.named_servers())
    request = replace(await received.converted(partial(body.checked, served)), wait_options=options)
    original = None
    if (unedited := body.unedited()) is not None:
        original = replace(await received.converted(partial(unedited.checked, served)), wait_options=options)
    return JsonResponse(partial(_count, services, request, original))


async def _count(services: Services, request: TokenizeRequest, original: TokenizeRequest | None) -> bytes:
    """Compute the body of the answer. ``original`` is the request before edits of its conversation."""
    answer: TokenCount = {"input_tokens": await _length(services, request)}
    if original is not None:
        answer["context_management"] = {"original_input_tokens": await _length(services, original)}
    return orjson.dumps(answer)


async def _length(services: Services, request: TokenizeRequest) -> int:
    return len((await services.yard.tokenize(await services.media.resolved(request))).tokens)
