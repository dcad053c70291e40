"""Messages of Anthropic's dialect and their blocks, as turns of the model's template."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from modelyard.api.anthropic.signatures import recalled
from modelyard.api.media.load import Reference
from modelyard.api.media.parts import READ_FIELDS, Said, Thought, content_of, image_of, read_part
from modelyard.api.serving.bounded_items import Parts
from modelyard.api.serving.request_servers import ToolNames
from modelyard.errors import InvalidRequest


class Part(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
    # Every prompt is cached.
    known_extras: ClassVar[Collection[str]] = frozenset({"cache_control"})


class Block(Part):
    """One block of a message's content. Its type decides which fields are read."""

    # Beside what parts say, what the API itself adds to the blocks that it returns, and the model cannot read.
    known_extras: ClassVar = READ_FIELDS | {"caller", "url", "page_age", "encrypted_content", "tool_name", "file_id"}

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    source: str | dict[str, Any] | None = None
    id: str | None = None
    name: str | None = None
    server_name: str | None = Field(default=None, description="The MCP server of an `mcp_tool_use`.")
    input: Any = None
    tool_use_id: str | None = None
    content: str | Parts[Block] | dict[str, Any] | None = None
    is_error: bool | None = None

    @model_validator(mode="after")
    def _recall(self) -> Self:
        """Take thinking that was omitted from its signature."""
        if self.type == "thinking" and not self.thinking and self.signature:
            self.thinking = recalled(self.signature)
        return self


def _blocks(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Blocks = Annotated[Parts[Block], BeforeValidator(_blocks, json_schema_input_type=str | Parts[Block])]


class Message(Part):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


def turns_of(message: Message, param: str, names: ToolNames) -> list[dict[str, Any]]:
    """Return the turns of chat templates for one message: results of tools are turns of their own.

    Results of the client's tools are before the rest of a user's message. Those of calls that this server ran follow
    their calls, in the middle of an assistant's message.

    Args:
        message: the message.
        param: its path in the body, for errors.
        names: of the functions by which the model calls tools of MCP servers.

    Raises:
        InvalidRequest: a block lacks a field.
        UnsupportedOperation: a block is of a kind that cannot be read.
    """
    turns: list[dict[str, Any]] = []
    said: list[Said] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(message.content):
        where = f"{param}[{index}]"
        match block.type:
            case "tool_result" if message.role == "user":
                turns.append(_result(block, where))
            case "tool_use" if message.role == "assistant":
                calls.append(_call(block, where))
            case "mcp_tool_use" if message.role == "assistant":
                calls.append(_server_call(block, where, names))
            case "mcp_tool_result" if message.role == "assistant":
                if said or calls:
                    turns.append(_turn(message, said, calls))
                    said, calls = [], []
                turns.append(_result(block, where))
            case _:
                said += _said(block, where)
    if said or calls or not turns:
        turns.append(_turn(message, said, calls))
    return turns


def _turn(message: Message, said: list[Said], calls: list[dict[str, Any]]) -> dict[str, Any]:
    content, thoughts = content_of(said, "\n")
    turn: dict[str, Any] = {"role": message.role, "content": content}
    if calls:
        turn["tool_calls"] = calls
    if thoughts:
        turn["reasoning_content"] = thoughts
    return turn


def _server_call(block: Block, param: str, names: ToolNames) -> dict[str, Any]:
    """Return a call of a tool of an MCP server, under the name that it has for the model, if it still has one."""
    call = _call(block, param)
    server = block.server_name or ""
    name = names.get((server, block.name or "")) or f"{server}_{block.name}"
    return {**call, "function": {**call["function"], "name": name}}


def _call(block: Block, param: str) -> dict[str, Any]:
    if block.name is None or block.id is None:
        raise InvalidRequest(f"'{param}': A {block.type} block must have an id, a name and an input.", param)
    return {
        "id": block.id,
        "type": "function",
        "function": {"name": block.name, "arguments": {} if block.input is None else block.input},
    }


def _result(block: Block, param: str) -> dict[str, Any]:
    if block.tool_use_id is None:
        raise InvalidRequest(f"'{param}': A {block.type} block must have a tool_use_id.", param)
    result: str | tuple[str | Reference, ...] = ""
    if isinstance(block.content, str):
        result = block.content
    elif isinstance(block.content, dict):
        result = json.dumps(block.content, ensure_ascii=False)
    elif block.content is not None:
        result = content_of_blocks(block.content, f"{param}.content")
    # The results of calls that this server ran are as the model has read them.
    if block.is_error and block.type == "tool_result":
        result = f"Error: {result}" if isinstance(result, str) else ("Error: ", *result)
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": result}


def content_of_blocks(blocks: list[Block], param: str) -> str | tuple[str | Reference, ...]:
    """Return the text of the blocks; with images, a tuple of texts and references."""
    said = [part for index, block in enumerate(blocks) for part in _said(block, f"{param}[{index}]")]
    return content_of(said, "\n")[0]


def _said(block: Block, param: str) -> list[Said]:
    if block.type == "image":
        return [image_of(block.source if isinstance(block.source, dict) else {}, f"{param}.source")]
    if block.type == "thinking":
        thinking = block.thinking or recalled(block.signature or "")
        return [Thought(thinking)] if thinking else []
    return read_part(block.model_dump(exclude_none=True), param)
