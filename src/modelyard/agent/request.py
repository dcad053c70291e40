"""A request that an agent answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.agent.tools import ServerTool
from modelyard.protocol.deltas import ToolCall
from modelyard.yard.requests.requests import Request

MAX_TOOL_ROUNDS: Final = 256
"""Upper bound of ``max_tool_rounds``, as in mistral.rs."""


@dataclass(frozen=True, slots=True)
class DecidedCall:
    """A call of an earlier answer that ended with a request for its approval, and what the client decided.

    Attributes:
        call: the call, whose result the conversation lacks so far.
        is_approved: whether it runs.
        message: why it was denied, for the model; "" where nothing was said.
    """

    call: ToolCall
    is_approved: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """A request, and the tools that the server runs for it.

    Attributes:
        request: its prompt is a ``Chat`` whose tools are those of the client and of the server. Its ``max_tokens``
            bounds the whole answer, over all rounds.
        tools: those of the server, by name.
        max_rounds: rounds in which the model may call tools of the server; in the one after, it may not.
        approval_timeout_s: how long a call waits for its approval.
        max_calls: calls of the server's tools in the whole answer, beside those of ``decided``. A call beyond them is
            not run, and its result says so; None: as many as any answer may have.
        returns_approvals: whether an answer ends where a call needs an approval, for the client to decide in its next
            request; otherwise the call waits for somebody who decides it.
        decided: calls that run, or are denied, before the first round.
        before: the conversation as the client sent it, without turns that the server added; turns that the client does
            not see are kept for the request that goes on from it.
    """

    request: Request
    tools: Mapping[str, ServerTool]
    max_rounds: int
    approval_timeout_s: float
    max_calls: int | None = None
    returns_approvals: bool = False
    decided: tuple[DecidedCall, ...] = ()
    before: tuple[Mapping[str, Any], ...] = ()
