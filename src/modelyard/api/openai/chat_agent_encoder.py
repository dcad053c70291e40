"""The chunks and the message of a chat completion that an agent answers.

What happens with the server's tools stands in chunks with an empty delta and a field of its own, under the names of
mistral.rs. There it stands in named events, which OpenAI's clients read as chunks without choices, and fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from modelyard.agent.events import (
    ApprovalDecided,
    ApprovalRequested,
    ApprovalReturned,
    CallBegan,
    CallEnded,
    CallProgressed,
    RunningCall,
    ToolEvent,
)
from modelyard.api.openai.chat_encoder import ChatEncoder
from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.message import message_object
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.openai.timings import timings_object
from modelyard.api.openapi.answers_openai import AgentChatCompletion, AgenticToolCall, ChatChoice
from modelyard.api.serving.agent_encoder import AgentAnswer, AgentEncoder, RoundJoints
from modelyard.protocol.deltas import Delta
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.token_stream import TokenStream

_PROGRESS: Final = "agentic_tool_call_progress"
_APPROVAL: Final = "agentic_tool_approval_required"


class ChatAgentEncoder(ChatEncoder, AgentEncoder):
    """Encodes one choice of a chat completion with calls of the server's tools.

    Args:
        body, chat, identity, index: see ``ChatEncoder``.
        calls: the calls of all choices of a whole answer; those of this choice are added.
    """

    def __init__(
        self,
        body: ChatCompletionRequest,
        chat: Chat,
        identity: Identity,
        index: int,
        calls: list[AgenticToolCall],
    ) -> None:
        super().__init__(body, chat, identity, index)
        self._calls = calls
        self._joints = RoundJoints()
        # Of rounds that are over.
        self._earlier_logprobs: list[TokenLogprob] = []

    def next_round(self, generation: TokenStream) -> bytes:
        """Return a chunk with the log-probabilities that the last round has left, if they were asked for."""
        self._earlier_logprobs += self._generation.logprobs
        rest = self._encode([])
        self._generation = generation
        self._joints.next_round()
        return rest

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        """Return the chunks of what the model has written."""
        joined = [self._joints.joined(delta) for delta in deltas]
        return self._progress() + (self._encode(joined) if joined else b"")

    def tool_event(self, event: ToolEvent) -> bytes:
        """Return the chunk of what happens with a call."""
        name, value = event_object(event)
        return self._chunks.of_extension(self._choice({}), name, value)

    def close_agent(self, finished: Finished, *, calls_client: bool) -> bytes:
        """Return the chunk with the finish_reason."""
        last = self._choice({}, "tool_calls" if calls_client else finished.reason)
        return self._encode([]) + self._chunks.of(last, timings_object(self._generation))

    def agent_choice(self, answer: AgentAnswer) -> ChatChoice:
        """Return the choice of a whole completion."""
        self._calls += [call_record(call, self._index) for call in answer.calls]
        logprobs = [*self._earlier_logprobs, *self._generation.logprobs]
        return {
            "index": self._index,
            "message": message_object(answer.message),
            "logprobs": self._logprobs(logprobs) if self._has_logprobs else None,
            "finish_reason": "tool_calls" if answer.calls_client else answer.finished.reason,
        }

    def whole(self, choices: Sequence[ChatChoice], finished: Sequence[Finished]) -> AgentChatCompletion:
        """Return the whole completion, with all calls of the server's tools."""
        return {**super().whole(choices, finished), "agentic_tool_calls": self._calls}


def call_record(ended: CallEnded, index: int) -> AgenticToolCall:
    """Return a call that has its result, of the choice ``index``."""
    running = ended.running
    return {
        "index": index,
        "id": running.call.id,
        "name": running.call.name,
        "server": running.tool.server,
        "arguments": running.call.arguments,
        "result": ended.result.text,
        "is_error": ended.result.is_error,
        "round": running.round,
        "duration_ms": round(1000 * ended.duration_s, 3),
    }


def event_object(event: ToolEvent) -> tuple[str, dict[str, Any]]:
    """Return the name of the field that reports an event, and its value."""
    running = event.running
    arguments = {"arguments": running.call.arguments}
    match event:
        case CallBegan():
            return _PROGRESS, _progress(running, "calling", arguments)
        case CallProgressed(_, progress):
            known = {"progress": progress.progress, "total": progress.total, "message": progress.message or None}
            return _PROGRESS, _progress(running, "running", {k: v for k, v in known.items() if v is not None})
        case ApprovalDecided(_, _, is_approved):
            return _PROGRESS, _progress(running, "approved" if is_approved else "denied", {})
        case CallEnded(_, result, duration_s):
            ended = {**arguments, "content": result.text, "is_error": result.is_error}
            return _PROGRESS, _progress(running, "complete", {**ended, "duration_ms": round(1000 * duration_s, 3)})
        case ApprovalRequested(_, approval_id, expires_at):
            return _APPROVAL, _approval(running, approval_id, {"expires_at": expires_at})
        case ApprovalReturned(_, approval_id):
            return _APPROVAL, _approval(running, approval_id, {})


def _progress(running: RunningCall, phase: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": _PROGRESS,
        "id": running.call.id,
        "round": running.round,
        "tool_name": running.call.name,
        "server": running.tool.server,
        "phase": phase,
        "data": {"tool_type": "custom", **data},
    }


def _approval(running: RunningCall, approval_id: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": _APPROVAL,
        "approval_id": approval_id,
        "id": running.call.id,
        "round": running.round,
        "tool": {"name": running.call.name, "server": running.tool.server, "label": running.tool.own_name},
        "arguments": running.call.arguments,
        **extra,
    }
