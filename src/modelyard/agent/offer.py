"""How a request becomes one that an agent answers: which tools of the server its model may call, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from modelyard.agent.agent import Agent
from modelyard.agent.request import AgentRequest, DecidedCall
from modelyard.agent.tools import ServerTool
from modelyard.config import Config
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.requests import Request

Permission = Literal["auto", "ask", "deny"]
"""What a request permits: "auto": what the server permits; "ask": each call needs an approval; "deny": no call."""


def agent_request(
    agent: Agent,
    request: Request,
    tools: Sequence[ServerTool],
    config: Config,
    *,
    max_rounds: int | None = None,
    max_calls: int | None = None,
    permission: Permission = "auto",
    returns_approvals: bool = False,
    decided: Sequence[DecidedCall] = (),
) -> AgentRequest | None:
    """Return ``request`` with tools of the server; None where its model may call none of them.

    A tool that has the name of a tool of the client is left out: the client's is meant. Turns that were kept of earlier
    answers return to the conversation.

    Args:
        agent: what answers it.
        request: its prompt is a ``Chat`` with the tools of the client.
        tools: of the server, that the model may call.
        config: in force; its bounds hold for the answer.
        max_rounds: asked for by the request; it lowers the configured bound.
        max_calls, returns_approvals, decided: see ``AgentRequest``.
        permission: asked for by the request; it adds to what the tools need.
    """
    if not tools and not decided:
        return None
    chat = request.prompt
    assert isinstance(chat, Chat)
    rounds = config.server.max_tool_rounds
    if max_rounds is not None:
        rounds = min(max_rounds, rounds)
    own = {tool["function"]["name"] for tool in chat.tools}
    offered = {tool.name: tool for tool in tools if tool.name not in own}
    if chat.tool_choice == "none" or permission == "deny" or rounds < 1:
        offered = {}
    if not offered and not decided:
        return None
    if permission == "ask":
        offered = {name: replace(tool, needs_approval=True) for name, tool in offered.items()}
    messages = _restored(agent, chat)
    # The tools of the server come first: they are the same in all requests, which may share the beginning of a prompt.
    definitions = (*(tool.definition for tool in offered.values()), *chat.tools)
    return AgentRequest(
        replace(request, prompt=replace(chat, messages=messages, tools=definitions)),
        offered,
        max_rounds=rounds,
        max_calls=max_calls,
        returns_approvals=returns_approvals,
        decided=tuple(decided),
        before=chat.messages,
        approval_timeout_s=config.mcp.approval_timeout,
    )


def with_kept_turns(agent: Agent, request: Request) -> Request:
    """Return a request that no agent answers with the turns that were kept of earlier answers to its conversation.

    Args:
        agent: what has kept them.
        request: its prompt is a ``Chat``.
    """
    chat = request.prompt
    assert isinstance(chat, Chat)
    messages = _restored(agent, chat)
    return request if messages is chat.messages else replace(request, prompt=replace(chat, messages=messages))


def _restored(agent: Agent, chat: Chat) -> tuple[Mapping[str, Any], ...]:
    return agent.kept_turns.restored(current_caller().owner, chat.messages)


def check_permission(permission: Permission, *, is_stream: bool) -> None:
    """Refuse to ask for approvals where nobody would learn of the question.

    Raises:
        InvalidRequest: ``permission`` is "ask", and the answer is no stream.
    """
    if permission == "ask" and not is_stream:
        raise InvalidRequest(
            "'agent_permission' is 'ask', which needs 'stream': true: the stream shows the calls that wait for their "
            "approval. Set 'stream', or leave 'agent_permission' out.",
            "agent_permission",
        )
