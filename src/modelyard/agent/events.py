"""What happens in the answer of an agent, in its order: rounds of a model, and the calls that the server runs."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.agent.tools import ServerTool, ToolProgress, ToolResult
from modelyard.protocol.deltas import Delta, ToolCall
from modelyard.protocol.events import Finished
from modelyard.yard.requests.token_stream import TokenStream


@dataclass(frozen=True, slots=True)
class RoundBegan:
    """The model has accepted a prompt: the conversation, with all results so far.

    Attributes:
        number: of the round, from 0.
        generation: what the model generates.
    """

    number: int
    generation: TokenStream


@dataclass(frozen=True, slots=True)
class OutputArrived:
    """The model has written content, reasoning, or calls of the client's tools; never calls of the server's.

    Attributes:
        deltas: with the calls of the whole answer numbered from 0.
        generation: of the round.
    """

    deltas: tuple[Delta, ...]
    generation: TokenStream


@dataclass(frozen=True, slots=True)
class RunningCall:
    """A call of one of the server's tools.

    Attributes:
        call: as the model made it.
        tool: the tool.
        round: number of the round that it was made in, from 0.
    """

    call: ToolCall
    tool: ServerTool
    round: int


@dataclass(frozen=True, slots=True)
class CallBegan:
    """The model has called a tool of the server, which runs now, or first waits for its approval."""

    running: RunningCall


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """A call waits for its approval.

    Attributes:
        approval_id: under which it is approved or denied.
        expires_at: when it counts as denied, in seconds since 1970.
    """

    running: RunningCall
    approval_id: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class ApprovalDecided:
    """A call was approved, and runs now, or denied, which its result says."""

    running: RunningCall
    approval_id: str
    is_approved: bool


@dataclass(frozen=True, slots=True)
class CallProgressed:
    """A running tool has reported its progress."""

    running: RunningCall
    progress: ToolProgress


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call has its result, which the model reads in the next round.

    Attributes:
        duration_s: for how long the tool has run; 0 where it was not run.
    """

    running: RunningCall
    result: ToolResult
    duration_s: float


@dataclass(frozen=True, slots=True)
class ApprovalReturned:
    """The answer ends with a call that the client is asked to approve; see ``AgentRequest.returns_approvals``."""

    running: RunningCall
    approval_id: str


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """The answer is complete. Nothing follows.

    Attributes:
        finished: the reason of the last round, with the usage of all rounds.
        calls_client: whether the answer ends because it calls tools of the client.
        generation: of the last round.
    """

    finished: Finished
    calls_client: bool
    generation: TokenStream


ToolEvent = CallBegan | ApprovalRequested | ApprovalDecided | CallProgressed | CallEnded | ApprovalReturned
AgentEvent = RoundBegan | OutputArrived | ToolEvent | AnswerEnded
