"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.agent.agent import Agent
from modelyard.agent.offer import agent_request, check_permission, with_kept_turns
from modelyard.agent.request import AgentRequest
from modelyard.agent.tools import ServerTool
from modelyard.api.openai.chat_agent_encoder import ChatAgentEncoder
from modelyard.api.openai.chat_encoder import ChatEncoder
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.schema import ChatCompletionRequest, choices_of
from modelyard.api.openai.tools import allowed_server_tools
from modelyard.api.openapi.answers_openai import AgenticToolCall
from modelyard.api.services import Services
from modelyard.api.serving.agent import AgentChoice, respond_agent
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import RequestBody
from modelyard.api.serving.server_tools import server_tools
from modelyard.api.serving.streaming import ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.config import Config
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.requests import Request


def chat_requests(body: ChatCompletionRequest, request: Request) -> list[Request]:
    """Return the request once for each choice. All have one prompt, which is scored once, for the first one.

    Args:
        body: the request as it came.
        request: the same request for the yard, with its images and sound.
    """
    first, *others = choices_of(request, body.choices)
    return [first, *(replace(each, prompt_logprobs=None) for each in others)]


def chat_choices(body: ChatCompletionRequest, request: Request) -> list[ChoiceRequest]:
    """Return the choices of a request that the model answers in one round; see ``chat_requests``."""
    assert isinstance(request.prompt, Chat)
    identity = Identity("chatcmpl")
    return [
        ChoiceRequest(choice, ChatEncoder(body, request.prompt, identity, index))
        for index, choice in enumerate(chat_requests(body, request))
    ]


def agent_choices(body: ChatCompletionRequest, asked: AgentRequest) -> list[AgentChoice]:
    """Return the choices of a request that an agent answers; see ``chat_requests``."""
    chat = asked.request.prompt
    assert isinstance(chat, Chat)
    identity = Identity("chatcmpl")
    calls: list[AgenticToolCall] = []
    return [
        AgentChoice(replace(asked, request=choice), ChatAgentEncoder(body, chat, identity, index, calls))
        for index, choice in enumerate(chat_requests(body, asked.request))
    ]


def chat_server_tools(body: ChatCompletionRequest, tools: Sequence[ServerTool]) -> tuple[ServerTool, ...]:
    """Return those of the server's tools that a request lets its model call."""
    if body.max_tool_rounds == 0 or body.agent_permission == "deny":
        return ()
    return allowed_server_tools(body.tool_choice, tools)


def chat_agent_request(
    agent: Agent, body: ChatCompletionRequest, request: Request, tools: Sequence[ServerTool], config: Config
) -> tuple[Request, AgentRequest | None]:
    """Return ``request`` for the yard, and with the server's ``tools`` for an agent; None where it can call none."""
    asked = agent_request(
        agent,
        request,
        tools,
        config,
        max_rounds=body.max_tool_rounds,
        permission=body.agent_permission or "auto",
    )
    return (with_kept_turns(agent, request) if asked is None else request), asked


async def asked_chat(
    services: Services, body: ChatCompletionRequest, http: HttpRequest, load: Callable[[Request], Awaitable[Request]]
) -> tuple[Request, AgentRequest | None]:
    """Return a chat as a request for the yard, and for an agent; None where its model can call no tool of the server.

    Args:
        services: of the application.
        body: the chat.
        http: the request that has brought it.
        load: loads its images and sound.

    Raises:
        InvalidRequest: a field, a header, or an image cannot be used.
        ModelNotFound, ModelRequired: there is no such model.
    """
    yard, agent = services.yard, services.agent
    check_permission(body.agent_permission or "auto", is_stream=bool(body.stream))
    tools = chat_server_tools(body, server_tools(http, yard, agent, body.model))
    request = await RequestBody.of(http.scope).converted(partial(body.checked, [tool.name for tool in tools]))
    request = await load(replace(request, wait_options=wait_options_of(http, body.keep_alive)))
    return chat_agent_request(agent, body, request, tools, yard.config)


router = APIRouter(route_class=JsonRoute)


@router.post("/v1/chat/completions", response_model=None)
async def create_chat_completion(body: ChatCompletionRequest, http: HttpRequest) -> Response:
    """Answer a conversation, whole or as a stream."""
    services = Services.of(http)
    request, asked = await asked_chat(services, body, http, lambda each: services.media.loaded(each, http.receive))
    if asked is None:
        return respond(services.yard, chat_choices(body, request), stream=bool(body.stream))
    return respond_agent(services.yard, services.agent, agent_choices(body, asked), stream=bool(body.stream))
