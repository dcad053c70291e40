"""GET /v1/agent/tools; GET /v1/agent/approvals, and POST to those below it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.agent.approvals import MAX_DENIAL_LENGTH, Decision, PendingApproval
from modelyard.agent.tools import ServerTool
from modelyard.api.agent.events import approval_event_stream
from modelyard.api.middleware.authorization import needs
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.services import Services
from modelyard.api.serving.ignored_fields import report_ignored
from modelyard.yard.requests.context import current_caller

MAX_WAIT_S: Final = 60.0
"""How long a request for the waiting calls waits for the first one."""


class ApprovalDecision(BaseModel):
    """The body of ``POST /v1/agent/approvals/{id}``."""

    model_config = ConfigDict(strict=True, extra="allow")

    decision: Literal["approve", "deny"] = Field(description="Whether the call runs.")
    message: str | None = Field(
        default=None, max_length=MAX_DENIAL_LENGTH, description="Why the call is denied; the model reads it."
    )
    remember_for_session: bool | None = Field(
        default=None,
        description="Whether further calls of the tool in the same answer are approved as well. Only with `approve`.",
    )

    def to_decision(self) -> Decision:
        """Return the decision."""
        is_approved = self.decision == "approve"
        return Decision(is_approved, self.message or "", is_approved and bool(self.remember_for_session))


def tool_object(tool: ServerTool) -> dict[str, Any]:
    """Return a tool as the list of tools has it."""
    return {
        "name": tool.name,
        "object": "agent.tool",
        "server": tool.server,
        "own_name": tool.own_name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "needs_approval": tool.needs_approval,
        "read_only": tool.is_read_only,
    }


def approval_object(pending: PendingApproval) -> dict[str, Any]:
    """Return a call that waits, as the list of approvals has it."""
    running = pending.running
    return {
        "id": pending.id,
        "object": "agent.approval",
        "created_at": int(pending.created_at),
        "expires_at": int(pending.expires_at),
        "model": pending.model,
        "tool": running.call.name,
        "server": running.tool.server,
        "arguments": running.call.arguments,
        "call_id": running.call.id,
        "round": running.round,
    }


router = APIRouter()


@router.get("/v1/agent/tools", response_model=None)
@needs("inference")
async def list_tools(
    http: HttpRequest,
    model: Annotated[
        str | None, Query(max_length=MAX_NAME_LENGTH, description="Id or alias; omitted: the default model.")
    ] = None,
) -> dict[str, Any]:
    """The tools of the server that a model may call for the caller."""
    services = Services.of(http)
    tools = services.agent.tools(services.yard.configured(model).id, current_caller())
    return {"object": "list", "data": [tool_object(tool) for tool in tools]}


@router.get("/v1/agent/approvals", response_model=None)
@needs("inference")
async def list_approvals(
    http: HttpRequest,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the first call, where none waits yet.")
    ] = 0.0,
) -> dict[str, Any]:
    """The calls that wait for an approval, the oldest first: the caller's own; all of them with the scope `admin`."""
    services, caller = Services.of(http), current_caller()
    approvals, owner, sees_all = services.agent.approvals, caller.owner, caller.may("admin")
    waiting = asyncio.create_task(approvals.wait_for_some(owner, wait, sees_all=sees_all))
    try:
        # A server that stops waits for none of its readers.
        with services.yard.monitor.ending(waiting.cancel):
            await asyncio.wait((waiting,))
    finally:
        waiting.cancel()
    pending = approvals.pending(owner, sees_all=sees_all) if waiting.cancelled() else waiting.result()
    return {"object": "list", "data": [approval_object(each) for each in pending]}


@router.get("/v1/agent/approvals/events", response_model=None)
@needs("inference")
async def watch_approvals(http: HttpRequest) -> Response:
    """The calls that wait for an approval, and every change of them, as server-sent events."""
    services, caller = Services.of(http), current_caller()
    sees_all = caller.may("admin")
    return approval_event_stream(
        services.yard,
        services.agent.approvals,
        lambda pending: sees_all or pending.owner == caller.owner,
        approval_object,
    )


@router.post("/v1/agent/approvals/{approval_id}", response_model=None)
@needs("inference")
async def decide_approval(approval_id: str, body: ApprovalDecision, http: HttpRequest) -> dict[str, Any]:
    """Approve or deny a call that waits."""
    report_ignored(http.scope, body)
    caller = current_caller()
    Services.of(http).agent.approvals.decide(
        approval_id, body.to_decision(), caller.owner, sees_all=caller.may("admin")
    )
    return {"status": "resolved"}
