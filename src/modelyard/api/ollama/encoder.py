"""Encodes the answers of /api/chat and /api/generate: one JSON object, or one a line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from modelyard.agent.events import CallBegan, CallEnded, ToolEvent
from modelyard.api.errors.ollama import error_body
from modelyard.api.openai.chat_agent_encoder import call_record
from modelyard.api.openai.prompt_logprobs import LEAST_LOGPROB
from modelyard.api.serving.agent_encoder import AgentAnswer, AgentEncoder, RoundJoints
from modelyard.api.serving.call_arguments import arguments_object
from modelyard.errors import ModelyardError
from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    Message,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Prompt
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.requests.token_stream import TokenStream


class OllamaEncoder(AgentEncoder):
    """Encodes one answer.

    Args:
        prompt: the prompt that is answered.
        name: the model's name as the client wrote it, because clients compare it.
        is_chat: whether the answer is a message; else it is bare text.
    """

    headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]  # noqa: RUF012 (read alone)

    def __init__(self, prompt: Prompt, name: str | None, *, is_chat: bool) -> None:
        self._prompt, self._name, self._is_chat = prompt, name, is_chat
        self._calls: dict[int, tuple[str, list[str]]] = {}

    def open(self, generation: TokenStream) -> bytes:
        """Return nothing: an answer begins with its first words."""
        self._generation = generation
        self._times = [generation.times]
        self._ended: list[CallEnded] = []
        self._joints = RoundJoints()
        self._model = self._name or generation.model
        self._reader = OutputReader(generation, self._prompt)
        return b""

    def text(self, text: str) -> bytes:
        """Return the lines of the deltas that the reader finds in ``text``."""
        return b"".join(map(self._encode, self._reader.push(text)))

    def close(self, finished: Finished) -> bytes:
        """Return the lines of the text that was held back, and the last line, with counts and durations."""
        return b"".join(map(self._encode, self._reader.finish(finished))) + self._close(finished)

    def next_round(self, generation: TokenStream) -> bytes:
        """Return nothing: a message goes on after the result of a tool."""
        # What no line has had so far stands in the next one.
        generation.logprobs[:0] = self._generation.logprobs
        self._generation = generation
        self._joints.next_round()
        self._times.append(generation.times)
        return b""

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        """Return the lines of what the model has written."""
        return b"".join(self._encode(self._joints.joined(delta)) for delta in deltas)

    def tool_event(self, event: ToolEvent) -> bytes:
        """Return the message with a call that the server runs, or with its result; nothing for what is no message."""
        match event:
            case CallBegan(running):
                call = (running.call.name, running.call.arguments)
                return self._line(self._content("", None, [call]), {"done": False})
            case CallEnded(running, result):
                self._ended.append(event)
                message = {"role": "tool", "content": result.text, "tool_name": running.call.name}
                return self._line({"message": message}, {"done": False})
        return b""

    def close_agent(self, finished: Finished, *, calls_client: bool) -> bytes:  # noqa: ARG002 (its messages show it)
        """Return the last line, with counts and durations, and with the calls that the server ran."""
        return self._close(finished)

    def agent_choice(self, answer: AgentAnswer) -> Message:
        """Return the answer as one message."""
        self._ended += answer.calls
        return answer.message

    def _close(self, finished: Finished) -> bytes:
        return self._line(self._content("", None, []), self._final_fields(finished))

    def end(self, _finished: Sequence[Finished]) -> bytes:
        """Return nothing: ``close`` has returned the last line."""
        return b""

    def comment(self, _text: str) -> bytes:
        """Return nothing: lines of JSON have no comments."""
        return b""

    def error(self, error: ModelyardError) -> bytes:
        """Return the line with the error."""
        return error_body(error) + b"\n"

    def choice(self, text: str, finished: Finished) -> Message:
        """Return the parsed answer."""
        return self._reader.whole(text, finished)

    def whole(self, choices: Sequence[Message], finished: Sequence[Finished]) -> dict[str, Any]:
        """Return the answer as one object."""
        (message,), (outcome,) = choices, finished
        calls = [(call.name, call.arguments) for call in message.tool_calls]
        return {
            **self._head(),
            **self._content(message.content, message.reasoning or None, calls),
            **self._final_fields(outcome),
        }

    def _encode(self, delta: Delta) -> bytes:
        match delta:
            case ContentDelta(text):
                return self._line(self._content(text, None, []), {"done": False})
            case ReasoningDelta(text):
                return self._line(self._content("", text, []), {"done": False})
            case ToolCallBegin(index, _, name):
                self._calls[index] = (name, [])
            case ToolCallArguments(index, text):
                self._calls[index][1].append(text)
            case ToolCallEnd(index):
                # Ollama sends a call as one object, so it is sent when it is complete.
                name, arguments = self._calls.pop(index)
                return self._line(self._content("", None, [(name, "".join(arguments))]), {"done": False})
        return b""

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}

    def _line(self, content: dict[str, Any], state: dict[str, Any]) -> bytes:
        return orjson.dumps({**self._head(), **content, **state}) + b"\n"

    def _content(self, content: str, thinking: str | None, calls: Sequence[tuple[str, str]]) -> dict[str, Any]:
        new_logprobs, self._generation.logprobs = self._generation.logprobs, []
        logprobs = {"logprobs": [_logprob(each) for each in new_logprobs]} if new_logprobs else {}
        thinking_field = {} if thinking is None else {"thinking": thinking}
        if not self._is_chat:
            return {"response": content, **thinking_field, **logprobs}
        message: dict[str, Any] = {"role": "assistant", "content": content, **thinking_field}
        if calls:
            message["tool_calls"] = [
                {"function": {"name": name, "arguments": arguments_object(arguments)}} for name, arguments in calls
            ]
        return {"message": message, **logprobs}

    def _final_fields(self, finished: Finished) -> dict[str, Any]:
        return {
            "done": True,
            "done_reason": finished.reason,
            **durations(*self._times),
            "prompt_eval_count": finished.usage.prompt_tokens,
            "eval_count": finished.usage.completion_tokens,
            **({"agentic_tool_calls": [call_record(call, 0) for call in self._ended]} if self._ended else {}),
        }


def durations(*rounds: RequestTimings) -> dict[str, int]:
    """Return Ollama's durations of an answer that has ended, in nanoseconds; the total is the sum of the others.

    Those of an answer of several rounds are summed. ``load_duration`` has all the time in which the answer was not
    computed: Ollama, too, counts there what a request waits for a place. A cached prompt costs little, but no duration
    is 0, because clients divide by them.

    Source: Ollama, api/types.go, Metrics; server/routes.go, ChatHandler.
    """
    parts = {
        "load_duration": sum(times.waited_s for times in rounds),
        "prompt_eval_duration": sum(times.prefill_s or 0.0 for times in rounds),
        "eval_duration": sum(times.decode_s or 0.0 for times in rounds),
    }
    nanoseconds = {name: max(1, round(seconds * 1e9)) for name, seconds in parts.items()}
    return {"total_duration": sum(nanoseconds.values()), **nanoseconds}


def _logprob(each: TokenLogprob) -> dict[str, Any]:
    top = [_token(token, logprob) for token, logprob in each.top]
    return {**_token(each.token, each.logprob), "top_logprobs": top}


def _token(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token.decode("utf-8", "replace"), "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(token)}
