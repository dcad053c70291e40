"""POST /v1/responses and /v1/responses/input_tokens; the endpoints of stored responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.agent.offer import agent_request
from modelyard.agent.tools import ServerTool
from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.responses.encoder import ResponseEncoder
from modelyard.api.openai.responses.mcp_items import lists_of
from modelyard.api.openai.responses.pages import Order, page_of
from modelyard.api.openai.responses.records import Record
from modelyard.api.openai.responses.schema import InputTokensRequest, ResponsesRequest
from modelyard.api.openai.responses.services import (
    Input,
    ResponseServices,
    extended,
    found_response,
    input_of,
    owner_of,
)
from modelyard.api.openai.responses.store import ResponseStore
from modelyard.api.openai.responses.tools import OfferedTools, served_after
from modelyard.api.openai.responses.truncation import oldest_turns, truncated
from modelyard.api.openapi.answers_responses import ResponseObject
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.api.serving.agent import AgentChoice, respond_agent
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.request_servers import served_tools
from modelyard.api.serving.streaming import ChoiceRequest, respond, while_connected
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, Sampling
from modelyard.yard.requests.requests import Request, TokenizeRequest

router = APIRouter()
json_router = APIRouter(route_class=JsonRoute)

After = Annotated[str | None, Query(description="The `last_id` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Items of a page.")]
Ordered = Annotated[Order, Query(description="`desc`: the newest first.")]


@json_router.post("/v1/responses", response_model=None)
async def create_response(body: ResponsesRequest, http: HttpRequest) -> Response:
    """Generate a response: whole, as a stream, or in the background."""
    async with AsyncExitStack() as connections:
        return await _response(body, http, connections)


async def _response(body: ResponsesRequest, http: HttpRequest, connections: AsyncExitStack) -> Response:
    """Return the response; it takes over ``connections`` to MCP servers where it needs them."""
    services, responses = Services.of(http), ResponseServices.of(http)
    own, connecting = {tool.name or "" for tool in body.tools or []}, connections if body.may_call_tools else None
    servers = body.named_servers()
    served = await served_tools(http, services.yard, services.agent, body.model, servers, connecting, own)
    sent = await input_of(body, http, served.names)
    converted = partial(_converted, body, sent, served.tools)
    request, offered = await RequestBody.of(http.scope).converted(converted, is_long=sent.is_long)
    request = replace(request, wait_options=wait_options_of(http, body.keep_alive))
    request = await services.media.loaded(request, http.receive)
    RequestContext.of(http.scope).ignore(body.ignored(sent.conversation, offered))
    asked = agent_request(
        services.agent,
        request,
        served_after(body.tool_choice, offered),
        services.yard.config,
        max_calls=body.max_tool_calls,
        returns_approvals=True,
        decided=sent.conversation.decided,
    )
    request = request if asked is None else asked.request
    if body.truncation == "auto":
        request = await _truncated(request, http)
    assert isinstance(request.prompt, Chat)
    keep = _keeper(responses.store, body, sent, owner_of(http))
    lists = [] if asked is None else lists_of(asked.tools.values(), sent.conversation.listed)
    decided = [each.call.id for each in sent.conversation.decided]
    defaults = _defaults(services, body)
    encoder = ResponseEncoder(body, request.prompt, offered.tools, defaults, keep, lists, decided)
    if asked is not None:
        asked = replace(asked, request=request)
    if not body.background:
        if asked is None:
            return respond(services.yard, [ChoiceRequest(request, encoder)], stream=bool(body.stream))
        choice = AgentChoice(asked, encoder)
        return respond_agent(
            services.yard, services.agent, [choice], stream=bool(body.stream), connections=connections.pop_all()
        )
    if body.stream:
        raise InvalidRequest("'background' responses are not streamed. Leave 'stream' out.", "stream")
    encoder.response["model"] = services.yard.model(body.model or "default").id
    await services.yard.checks.check_task(request.model, "text")
    if asked is None:
        responses.background.start(request, encoder)
    else:
        responses.background.start_agent(services.agent, asked, encoder, connections)
    # What is stored is read if the server ends before the response does.
    error = {"code": "server_error", "message": "The server ended before the response was complete. Send it again."}
    unfinished = {**encoder.response, "status": "failed", "error": error}
    responses.store.keep(Record(encoder.response["id"], owner_of(http), unfinished, sent.items, sent.before))
    return _json(encoder.response)


def _converted(body: ResponsesRequest, sent: Input, served: Sequence[ServerTool]) -> tuple[Request, OfferedTools]:
    offered = body.offered(sent.conversation, served)
    return body.checked(sent.conversation, offered), offered


async def _truncated(request: Request, http: HttpRequest) -> Request:
    """Return ``request`` with a conversation that fits, and list in a header what was left out of it.

    Raises:
        InvalidRequest: the client left before the conversation was counted.
    """
    shorter: list[Request] = []

    async def shorten() -> None:
        fitting, left_out = await truncated(Services.of(http).yard, request)
        shorter.append(fitting)
        RequestContext.of(http.scope).note(oldest_turns(left_out))

    await while_connected(http.receive, shorten())
    if not shorter:
        raise InvalidRequest("The client left while its conversation was counted.")
    return shorter[0]


def _keeper(
    store: ResponseStore, body: ResponsesRequest, sent: Input, owner: bytes | None
) -> Callable[[ResponseObject], None]:
    """Return a function that stores a response as the request asks for it, once it is complete or has failed."""
    conversation = body.conversation

    def keep(response: ResponseObject) -> None:
        if body.is_kept:
            store.keep(Record(response["id"], owner, response, sent.items, sent.before))
        if conversation is not None and response["status"] != "failed":
            new = (*sent.items, *response["output"])
            store.change_later(conversation.id, owner, lambda record: extended(record, new))

    return keep


def _defaults(services: Services, body: ResponsesRequest) -> Sampling:
    """Return how the configuration has the model sampled."""
    return Sampling(**services.yard.configured(body.model).sampling.model_dump())


@json_router.post("/v1/responses/input_tokens", response_model=None)
async def count_input_tokens(body: InputTokensRequest, http: HttpRequest) -> Response:
    """Count the tokens of a response's prompt, with its instructions and its tools, without computing anything."""
    services = Services.of(http)
    served = await served_tools(http, services.yard, services.agent, body.model, body.named_servers())
    sent = await input_of(body, http, served.names)

    def convert() -> tuple[Chat, OfferedTools]:
        offered = body.offered(sent.conversation, served.tools)
        return body.counted(sent.conversation, offered), offered

    chat, offered = await RequestBody.of(http.scope).converted(convert, is_long=sent.is_long)
    RequestContext.of(http.scope).ignore(body.ignored(sent.conversation, offered))
    request = TokenizeRequest(prompt=chat, model=body.model, wait_options=wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(_count, services, request))


async def _count(services: Services, request: TokenizeRequest) -> bytes:
    """Compute the body of the answer."""
    tokenization = await services.yard.tokenize(await services.media.resolved(request))
    return orjson.dumps({"object": "response.input_tokens", "input_tokens": len(tokenization.tokens)})


@router.get("/v1/responses/{response_id}")
@needs("inference")
async def retrieve_response(response_id: str, http: HttpRequest) -> Response:
    """A response, as far as it has been generated."""
    return _json((await found_response(response_id, http)).head)


@router.get("/v1/responses/{response_id}/input_items")
@needs("inference")
async def list_input_items(
    response_id: str, http: HttpRequest, after: After = None, limit: Limit = 20, order: Ordered = "desc"
) -> Response:
    """The input items of a response, a page at a time."""
    record = await found_response(response_id, http)
    return _json(page_of(record.items, after, limit, order))


@router.delete("/v1/responses/{response_id}")
@needs("inference")
async def delete_response(response_id: str, http: HttpRequest) -> Response:
    """Delete a response."""
    responses = ResponseServices.of(http)
    await found_response(response_id, http)
    responses.background.cancel(response_id)
    await responses.store.delete(response_id, owner_of(http))
    return _json({"id": response_id, "object": "response", "deleted": True})


@router.post("/v1/responses/{response_id}/cancel")
@needs("inference")
async def cancel_response(response_id: str, http: HttpRequest) -> Response:
    """Cancel a response in the background."""
    responses, record = ResponseServices.of(http), await found_response(response_id, http)
    if not record.head["background"]:
        raise InvalidRequest("Only responses in the background can be cancelled.", "response_id")
    if not responses.background.cancel(response_id):
        return _json(record.head)
    cancelled = replace(record, head={**record.head, "status": "cancelled"})
    responses.store.keep(cancelled)
    return _json(cancelled.head)


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
