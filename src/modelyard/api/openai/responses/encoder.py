"""Encodes the answers of /v1/responses: output items, whole or as named events."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from modelyard.agent.events import ApprovalDecided, ApprovalReturned, CallBegan, CallEnded, ToolEvent
from modelyard.api.openai.message import logprobs_object
from modelyard.api.openai.responses.calls import built_in_call, custom_call, function_call, new_id
from modelyard.api.openai.responses.event_writer import EventWriter
from modelyard.api.openai.responses.mcp_items import approval_request
from modelyard.api.openai.responses.opaque import encoded
from modelyard.api.openai.responses.response_object import failure_of, queued_response, usage_object
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openai.responses.server_calls import ServerCalls
from modelyard.api.openai.responses.text_argument import TextArgument
from modelyard.api.openai.responses.tools import OfferedTool
from modelyard.api.openapi.answers_responses import (
    McpListToolsItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ResponseObject,
)
from modelyard.api.serving.agent_encoder import AgentAnswer, AgentEncoder, RoundMessage
from modelyard.api.serving.streaming import EVENT_STREAM
from modelyard.errors import ModelyardError
from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
    deltas_of,
)
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat, Sampling
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.token_stream import TokenStream


class ResponseEncoder(AgentEncoder):
    """Encodes one response.

    Args:
        body: the request.
        chat: the conversation that is answered.
        tools: the tools that the model may call, by the name of their function.
        sampling: the values that are sampled with where the request has none.
        on_done: called with the response when it is complete or has failed.
        lists: the lists of tools with which the response begins.
        decided: ids of the calls that the client has decided about, which are those of the requests for it.

    Attributes:
        response: the response object, as far as it has been generated.
    """

    headers = EVENT_STREAM

    def __init__(
        self,
        body: ResponsesRequest,
        chat: Chat,
        tools: Mapping[str, OfferedTool],
        sampling: Sampling,
        on_done: Callable[[ResponseObject], None],
        lists: Sequence[McpListToolsItem] = (),
        decided: Collection[str] = (),
    ) -> None:
        self._chat, self._tools, self._on_done = chat, tools, on_done
        self._reads_logprobs = body.logprobs is not None
        self._encodes_reasoning = body.encodes_reasoning
        self._events = EventWriter(obfuscates=body.obfuscates)
        self._event = self._events.event
        # The output item that is being generated.
        self._item: OutputItem | None = None
        # The call of a built-in tool that is being generated: its item is begun when its arguments are complete.
        self._call: tuple[str, OfferedTool] | None = None
        self._arguments: list[str] = []
        self._input = TextArgument()
        self.response = queued_response(body, sampling)
        self._calls = ServerCalls(self._events, self.response["output"], lists, decided)

    def open(self, generation: TokenStream) -> bytes:
        """Return the events that begin a response."""
        self._generation = generation
        self._rounds = [generation]
        self._reader = OutputReader(generation, self._chat)
        self.response |= {"model": generation.model, "status": "in_progress"}
        created = self._event("response.created", response=self.response)
        begun = self._event("response.in_progress", response=self.response)
        return created + begun + self._calls.lists()

    def text(self, text: str) -> bytes:
        """Return the events of the deltas that the reader finds in ``text``."""
        return b"".join(map(self._encode, self._reader.push(text)))

    def close(self, finished: Finished) -> bytes:
        """Return the events of the text that was held back, and the event with the whole response."""
        return self.deltas(self._reader.finish(finished)) + self._close(finished)

    def next_round(self, generation: TokenStream) -> bytes:
        """Return the end of the item of the round before."""
        self._generation = generation
        self._rounds.append(generation)
        return self._end_item()

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        """Return the events of what the model has written."""
        return b"".join(map(self._encode, deltas))

    def tool_event(self, event: ToolEvent) -> bytes:
        """Return the events of a call that the server runs, or that the client is asked to approve."""
        match event:
            case CallBegan(running) if self._calls.runs_at_once(running):
                return self._end_item() + self._calls.begin(running)
            case ApprovalDecided(running):
                return self._end_item() + self._calls.begin(running)
            case CallEnded(running, result):
                return self._end_item() + self._calls.begin(running) + self._calls.end(running, result)
            case ApprovalReturned(running, approval_id):
                return self._end_item() + self._begin(approval_request(running, approval_id)) + self._end_item()
        return b""

    def close_agent(self, finished: Finished, *, calls_client: bool) -> bytes:  # noqa: ARG002 (its items show it)
        """Return the event with the whole response."""
        return self._close(finished)

    def agent_choice(self, answer: AgentAnswer) -> ResponseObject:
        """Return the complete response."""
        for part in answer.parts:
            if isinstance(part, RoundMessage):
                # Its logprobs are those of its round.
                self._generation = self._rounds[part.round]
                self._end_item()
                self.deltas(deltas_of(part.message))
            else:
                self.tool_event(part)
        self._close(answer.finished)
        return self.response

    def _close(self, finished: Finished) -> bytes:
        rest = b""
        if all(item["type"] == "mcp_list_tools" for item in self.response["output"]):
            rest += self._begin_message()
        rest += self._end_item()
        is_cut = finished.reason == "length"
        self.response |= {
            "status": "incomplete" if is_cut else "completed",
            "completed_at": None if is_cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": usage_object(finished.usage),
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
        self._calls.break_off()
        self.response |= {"status": "failed", "error": failure_of(error)}
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
                return self._end_item() + self._begin_call(id, name)
            case ToolCallArguments(_, text):
                return self._add_arguments(text)
            case ToolCallEnd():
                return self._end_call()

    def _begin_message(self) -> bytes:
        if self._item is not None and self._item["type"] == "message":
            return b""
        part: OutputText = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item: MessageItem = {
            "type": "message",
            "id": new_id("msg"),
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
            "id": new_id("rs"),
            "summary": [],
            "content": [],
            "status": "in_progress",
        }
        begin = self._end_item() + self._begin(item)
        item["content"].append({"type": "reasoning_text", "text": ""})
        return begin + self._item_event("response.content_part.added", content_index=0, part=item["content"][0])

    def _begin_call(self, call_id: str, function: str) -> bytes:
        tool = self._tools.get(function)
        self._arguments.clear()
        if tool is None or tool.kind == "function":
            return self._begin(function_call(call_id, function, tool))
        if tool.kind == "custom":
            self._input = TextArgument()
            return self._begin(custom_call(call_id, tool))
        self._call = (call_id, tool)
        return b""

    def _add_text(self, text: str) -> bytes:
        assert self._item is not None
        assert self._item["type"] == "message"
        part = self._item["content"][0]
        part["text"] += text
        new_logprobs, self._generation.logprobs = self._generation.logprobs, []
        logprobs = logprobs_object(new_logprobs)["content"] if self._reads_logprobs else []
        part["logprobs"] += logprobs
        return self._delta_event("response.output_text.delta", text, content_index=0, logprobs=logprobs)

    def _add_reasoning(self, text: str) -> bytes:
        assert self._item is not None
        assert self._item["type"] == "reasoning"
        self._item["content"][0]["text"] += text
        return self._delta_event("response.reasoning_text.delta", text, content_index=0)

    def _add_arguments(self, text: str) -> bytes:
        if self._call is not None:
            self._arguments.append(text)
            return b""
        assert self._item is not None
        if self._item["type"] == "custom_tool_call":
            return self._add_input(self._input.push(text))
        assert self._item["type"] == "function_call"
        self._item["arguments"] += text
        return self._delta_event("response.function_call_arguments.delta", text)

    def _add_input(self, text: str) -> bytes:
        assert self._item is not None
        assert self._item["type"] == "custom_tool_call"
        self._item["input"] += text
        return self._delta_event("response.custom_tool_call_input.delta", text) if text else b""

    def _end_call(self) -> bytes:
        if self._call is None:
            rest = b""
            if self._item is not None and self._item["type"] == "custom_tool_call":
                rest = self._add_input(self._input.finish()[0])
            return rest + self._end_item()
        (call_id, tool), self._call = self._call, None
        arguments = "".join(self._arguments)
        if (item := built_in_call(call_id, tool, arguments)) is not None:
            return self._begin(item) + self._end_item()
        # What the model wrote is not lost: the client sees a call that it cannot run.
        begin = self._begin(function_call(call_id, tool.function, tool))
        return begin + self._add_arguments(arguments) + self._end_item()

    def _begin(self, item: OutputItem) -> bytes:
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
                events = self._end_reasoning(item)
            case "function_call":
                events = self._item_event(
                    "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"]
                )
            case "custom_tool_call":
                events = self._item_event("response.custom_tool_call_input.done", input=item["input"])
        # The other items of MCP servers have no status.
        if item["type"] != "mcp_list_tools" and item["type"] != "mcp_approval_request":
            item["status"] = "completed"
        events += self._event("response.output_item.done", output_index=self._index(), item=item)
        self._item = None
        return events

    def _end_reasoning(self, item: ReasoningItem) -> bytes:
        part = item["content"][0]
        if self._encodes_reasoning:
            item["encrypted_content"] = encoded("reasoning", part["text"])
        done = self._item_event("response.reasoning_text.done", content_index=0, text=part["text"])
        return done + self._item_event("response.content_part.done", content_index=0, part=part)

    def _index(self) -> int:
        return len(self.response["output"]) - 1

    def _delta_event(self, kind: str, delta: str, /, **fields: Any) -> bytes:
        assert self._item is not None
        return self._events.delta(kind, delta, item_id=self._item["id"], output_index=self._index(), **fields)

    def _item_event(self, kind: str, /, **fields: Any) -> bytes:
        assert self._item is not None
        return self._event(kind, item_id=self._item["id"], output_index=self._index(), **fields)
