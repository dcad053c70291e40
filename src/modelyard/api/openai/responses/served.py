"""The tools that this server runs for one request of /v1/responses."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from fastapi import Request as HttpRequest

from modelyard.agent.offer import agent_request
from modelyard.agent.request import AgentRequest
from modelyard.api.openai.responses.history import Conversation
from modelyard.api.openai.responses.schema import PromptFields, ResponsesRequest
from modelyard.api.openai.responses.tools import OfferedTools, mcp_servers_of, tools_after
from modelyard.api.services import Services
from modelyard.api.serving.request_servers import ServedTools, configured_tools, connected_tools
from modelyard.api.serving.server_tools import known_tools, wants_tools
from modelyard.yard.requests.requests import Request


async def served_tools(body: ResponsesRequest, http: HttpRequest, connections: AsyncExitStack) -> ServedTools:
    """Return the tools that this server runs for a request.

    Args:
        body: the request.
        http: the request.
        connections: gets the connections to servers that the request names by URL.

    Raises:
        InvalidRequest: a server is not known, not allowed, or cannot be used.
        PermissionDenied: the key is limited to MCP servers of the configuration.
        ModelNotFound, ModelRequired: there is no such model.
    """
    served = served_without_connections(body, http)
    if body.tool_choice == "none" or not wants_tools(http):
        return served
    taken = {tool.name or "" for tool in body.tools or []} | {tool.name for tool in served.tools}
    config = Services.of(http).yard.config
    connected = await connected_tools(mcp_servers_of(body.tools or []), http, config, connections, taken)
    return replace(served, tools=(*served.tools, *connected))


def served_without_connections(body: PromptFields, http: HttpRequest) -> ServedTools:
    """Return the tools of configured servers that this server runs for a request.

    Raises:
        InvalidRequest: a server is not known.
        ModelNotFound, ModelRequired: there is no such model.
    """
    services, servers = Services.of(http), mcp_servers_of(body.tools or [])
    known = known_tools(services.yard, services.agent, body.model)
    return ServedTools(tuple(configured_tools(servers, known)) if wants_tools(http) else (), known)


def agent_request_of(
    body: ResponsesRequest, request: Request, conversation: Conversation, offered: OfferedTools, services: Services
) -> AgentRequest | None:
    """Return ``request`` with the tools that this server runs for it; None where there are none."""
    return agent_request(
        services.agent,
        request,
        tools_after(body.tool_choice, offered).served,
        services.yard.config,
        max_calls=body.max_tool_calls,
        returns_approvals=True,
        decided=conversation.decided,
    )
