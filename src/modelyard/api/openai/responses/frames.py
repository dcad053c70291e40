"""Encodes the answers of /v1/responses: output items, whole or as named events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from pydantic import BaseModel

from modelyard.api.errors.responses import error_object
from modelyard.api.openai.message import logprobs_object
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openapi.answers_openai import (
    FunctionCallItem,
    MessageItem,
    OutputText,
    ReasoningItem,
    ResponseObject,
    ResponseUsage,
)
from modelyard.api.serving.output_reader import OutputReader
from modelyard.api.serving.streaming import EVENT_STREAM
from modelyard.errors import ModelyardError
from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallBroken,
    ToolCallEnd,
)
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.protocol.values import Usage
from modelyard.yard.requests.generation import TokenStream

Item = MessageItem | ReasoningItem | FunctionCallItem


class ResponseFrames:
    """Encodes one response.

    Args:
        body: the request.
        chat: the conversation that is answered.
        on_done: called with the response when it is complete or has failed.

    Attributes:
        response: the response object, as far as it has been generated.
    """

    headers = EVENT_STREAM

    def __init__(self, body: ResponsesRequest, chat: Chat, on_done: Callable[[ResponseObject], None]) -> None:
        self._chat, self._on_done = chat, on_done
        self._sequence = 0
        self._reads_logprobs = body.logprobs is not None
        # The output item that is being generated.
        self._item: Item | None = None
        self.response = _queued(body)

    def open(self, generation: TokenStream) -> bytes:
        """Return the events that begin a response."""
        self._generation = generation
        self._reader = OutputReader(generation, self._chat)
        self.response |= {"model": generation.model, "status": "in_progress"}
        return self._event("response.created", response=self.response) + self._event(
            "response.in_progress", response=self.response
        )

    def text(self, text: str) -> bytes:
        """Return the events of the deltas that the reader finds in ``text``."""
        return b"".join(map(self._encode, self._reader.push(text)))

    def close(self, finished: Finished) -> bytes:
        """Return the events of the text that was held back, and the event with the whole response."""
        rest = b"".join(map(self._encode, self._reader.finish()))
        if not self.response["output"]:
            rest += self._begin_message()
        rest += self._end_item()
        is_cut = finished.reason == "length"
        self.response |= {
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": _usage(finished.usage),
        }
        self._on_done(self.response)
        return rest + self._event(f"response.{self.response['status']}", response=self.response)

    def end(self, _finished: Sequence[Finished]) -> bytes:
        """Return nothing: ``close`` has returned the last event."""
        return b""

    def comment(self, text: str) -> bytes:
        """Return a comment of server-sent events."""
        return b": " + text.encode() + b"\n\n"

    def error(self, error: ModelyardError) -> bytes:
        """Return the event with the failed response."""
        self.fail(error)
        return self._event("response.failed", response=self.response)

    def fail(self, error: ModelyardError) -> None:
        """Mark the response as failed with ``error``."""
        failure = error_object(error)
        self.response |= {"status": "failed", "error": {"code": failure["code"], "message": failure["message"]}}
        self._on_done(self.response)

    def choice(self, text: str, finished: Finished) -> ResponseObject:
        """Return the complete response."""
        self.text(text)
        self.close(finished)
        return self.response

    def whole(self, choices: Sequence[ResponseObject], _finished: Sequence[Finished]) -> ResponseObject:
        """Return the response as one object."""
        return choices[0]

    def _encode(self, delta: Delta) -> bytes:
        match delta:
            case ContentDelta(text):
                return self._begin_message() + self._add_text(text)
            case ReasoningDelta(text):
                return self._begin_reasoning() + self._add_reasoning(text)
            case ToolCallBegin(_, id, name):
                return self._end_item() + self._begin(_function_call(id, name))
            case ToolCallArguments(_, text):
                assert self._item is not None
                assert self._item["type"] == "function_call"
                self._item["arguments"] += text
                return self._item_event("response.function_call_arguments.delta", delta=text)
            case ToolCallEnd():
                return self._end_item()
            case ToolCallBroken(_, text):
                # The text was not a call after all, so its item must not stay in progress.
                assert self._item is not None
                self._item["status"] = "incomplete"
                return self._end_item() + self._begin_message() + self._add_text(text)

    def _begin_message(self) -> bytes:
        if self._item is not None and self._item["type"] == "message":
            return b""
        part: OutputText = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item: MessageItem = {
            "type": "message",
            "id": _new_id("msg"),
            "role": "assistant",
            "content": [],
            "status": "in_progress",
        }
        begin = self._end_item() + self._begin(item)
        item["content"].append(part)
        return begin + self._item_event("response.content_part.added", content_index=0, part=part)

    def _begin_reasoning(self) -> bytes:
        if self._item is not None and self._item["type"] == "reasoning":
            return b""
        item: ReasoningItem = {
            "type": "reasoning",
            "id": _new_id("rs"),
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        begin = self._end_item() + self._begin(item)
        item["content"].append({"type": "reasoning_text", "text": ""})
        return begin

    def _add_text(self, text: str) -> bytes:
        assert self._item is not None
        assert self._item["type"] == "message"
        part = self._item["content"][0]
        part["text"] += text
        new_logprobs, self._generation.logprobs = self._generation.logprobs, []
        logprobs = logprobs_object(new_logprobs)["content"] if self._reads_logprobs else []
        part["logprobs"] += logprobs
        return self._item_event("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _add_reasoning(self, text: str) -> bytes:
        assert self._item is not None
        assert self._item["type"] == "reasoning"
        self._item["content"][0]["text"] += text
        return self._item_event("response.reasoning_text.delta", content_index=0, delta=text)

    def _begin(self, item: Item) -> bytes:
        self._item = item
        self.response["output"].append(item)
        return self._event("response.output_item.added", output_index=self._index(), item=item)

    def _end_item(self) -> bytes:
        item = self._item
        if item is None:
            return b""
        events = b""
        match item["type"]:
            case "message":
                part = item["content"][0]
                events = self._item_event(
                    "response.output_text.done", content_index=0, text=part["text"], logprobs=part["logprobs"]
                ) + self._item_event("response.content_part.done", content_index=0, part=part)
            case "reasoning":
                events = self._item_event(
                    "response.reasoning_text.done", content_index=0, text=item["content"][0]["text"]
                )
            case "function_call" if item["status"] != "incomplete":
                events = self._item_event(
                    "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"]
                )
        if item["status"] == "in_progress":
            item["status"] = "completed"
        events += self._event("response.output_item.done", output_index=self._index(), item=item)
        self._item = None
        return events

    def _index(self) -> int:
        return len(self.response["output"]) - 1

    def _item_event(self, kind: str, /, **fields: Any) -> bytes:
        assert self._item is not None
        return self._event(kind, item_id=self._item["id"], output_index=self._index(), **fields)

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _function_call(call_id: str, name: str) -> FunctionCallItem:
    return {
        "type": "function_call",
        "id": _new_id("fc"),
        "call_id": call_id,
        "name": name,
        "arguments": "",
        "status": "in_progress",
    }


def _queued(body: ResponsesRequest) -> ResponseObject:
    """Return the response object before anything is generated: the fields of the request, and empty output."""
    text_format = None if body.text is None or body.text.format is None else body.text.format
    return {
        "id": _new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "queued",
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": body.model or "",
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None if body.reasoning is None else body.reasoning.effort, "summary": None},
        "store": body.is_kept,
        "temperature": body.temperature,
        "text": {
            "format": {"type": "text"}
            if text_format is None
            else text_format.model_dump(by_alias=True, exclude_none=True)
        },
        "tool_choice": body.tool_choice.model_dump(exclude_none=True)
        if isinstance(body.tool_choice, BaseModel)
        else body.tool_choice or "auto",
        "tools": [tool.model_dump(exclude_none=True) for tool in body.tools or []],
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
    }


def _usage(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
