"""The items of a conversation in /v1/responses: as turns of the model's template, and as they are listed.

A history may come from any server and any model. What an API once answered with is therefore never refused: an item
becomes a turn, or is left out where it says nothing to this model.

Source: https://platform.openai.com/docs/api-reference/responses/create#responses-create-input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.openai.responses.calls import new_id
from modelyard.api.openai.responses.content import ContentPart, content_of
from modelyard.api.openai.responses.opaque import decoded
from modelyard.api.openai.responses.tools import Tool, function_name
from modelyard.api.openai.tools import Tools
from modelyard.api.serving.bounded_items import Parts
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import ends_in_an_answer

Messages = list[dict[str, Any]]

# Prefixes of ids as OpenAI's; any other item has "item".
_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
}

_SUMMARY: Final = "Summary of the conversation so far:\n\n"


class Item(BaseModel):
    """One item of the input. Its type determines which fields are read."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
    known_extras: ClassVar = PASSED_ON

    type: str = "message"
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = Field(default=None, description="The namespace of the called tool.")
    arguments: str | dict[str, Any] | None = None
    input: str | None = Field(default=None, description="The text that a custom tool was called with.")
    action: dict[str, Any] | None = Field(default=None, description="What a shell or a computer was called to do.")
    operation: dict[str, Any] | None = Field(default=None, description="The change of a file by `apply_patch`.")
    output: str | Parts[ContentPart] | dict[str, Any] | Parts[dict[str, Any]] | None = None
    summary: Parts[ContentPart] | None = Field(
        default=None, description="A summary of the reasoning; read where the reasoning itself is missing."
    )
    encrypted_content: str | None = Field(
        default=None, description="Reasoning, or the summary of a compaction, as this server returned it."
    )
    tools: Tools[Tool] | None = Field(default=None, description="Tools that a search has found.")
    status: str | None = None


@dataclass(slots=True)
class Conversation:
    """The turns of a conversation.

    Attributes:
        messages: the turns, as chat templates read them.
        found_tools: the tools that items add to those of the request.
        left_out: the items that say nothing to the model, as their index and their type.
        ends_in_an_answer: whether the last item is a message of the assistant, from whose end the answer goes on.
    """

    messages: Messages = field(default_factory=list)
    found_tools: list[Tool] = field(default_factory=list)
    left_out: list[tuple[int, str]] = field(default_factory=list)
    ends_in_an_answer: bool = False


def conversation_of(before: Iterable[Item], items: Sequence[Item], param: str = "input") -> Conversation:
    """Return the conversation of ``items`` that follow those of ``before``; ``left_out`` is about ``items`` alone.

    Args:
        before: earlier items.
        items: the items of the request.
        param: the field of the request that has them, for errors.

    Raises:
        InvalidRequest: an item lacks a field.
        UnsupportedOperation: a part of an item is of a kind that no model reads here.
    """
    conversation = Conversation()
    for item in before:
        _add(conversation, item, "input", 0)
    conversation.left_out.clear()
    for index, item in enumerate(items):
        _add(conversation, item, f"{param}[{index}]", index)
    is_message = bool(items) and items[-1].type == "message"
    conversation.ends_in_an_answer = is_message and ends_in_an_answer(conversation.messages)
    return conversation


def listed_item(item: Item) -> dict[str, Any]:
    """Return an item as it is stored and listed: with an id and a status, and its content as parts.

    Raises:
        InvalidRequest: it nests too deeply to be written as JSON.
    """
    try:
        sent = {"type": item.type, **item.model_dump(exclude_none=True, exclude_unset=True)}
        # What is stored and listed is written by it.
        orjson.dumps(sent, default=str)
    except (ValueError, orjson.JSONEncodeError) as error:
        raise InvalidRequest(f"An item of type '{item.type}' nests too deeply: {error}.", "input") from error
    listed = {"id": new_id(_PREFIXES.get(item.type, "item")), "status": "completed", **sent}
    if item.type == "message":
        listed["content"] = _listed_content(item)
    elif item.type == "reasoning":
        listed.setdefault("summary", [])
    return listed


def _listed_content(item: Item) -> list[dict[str, Any]]:
    is_answer = item.role == "assistant"
    if item.content is None or isinstance(item.content, str):
        kind = "output_text" if is_answer else "input_text"
        parts: list[dict[str, Any]] = [{"type": kind, "text": item.content or ""}]
    else:
        parts = [part.model_dump(exclude_none=True, exclude_unset=True) for part in item.content]
    defaults: dict[str, dict[str, Any]] = {
        "output_text": {"annotations": [], "logprobs": []},
        "input_image": {"detail": "auto"},
    }
    return [{**defaults.get(part["type"], {}), **part} for part in parts]


def _add(conversation: Conversation, item: Item, param: str, index: int) -> None:
    """Add an item: a call becomes a part of the assistant's turn before it."""
    messages = conversation.messages
    match item.type:
        case "message":
            _add_message(messages, item, param)
        case "function_call" if item.status == "incomplete":
            # The text of a call that broke off is also a message, and clients send back both.
            pass
        case "reasoning":
            if text := _reasoning(item):
                messages.append({"role": "assistant", "content": "", "reasoning_content": text})
            else:
                conversation.left_out.append((index, item.type))
        case "compaction" if (summary := decoded("summary", item.encrypted_content)) is not None:
            messages.append({"role": "user", "content": _SUMMARY + summary})
        case "tool_search_output" | "additional_tools":
            found = item.tools or []
            conversation.found_tools += found
            if item.type == "tool_search_output" and item.call_id is not None:
                _add_result(messages, item.call_id, _described(found))
        case _ if (call := _call(item, param)) is not None:
            name, arguments, call_id = call
            _assistant(messages).setdefault("tool_calls", []).append(
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            )
            if (result := _own_result(item)) is not None:
                _add_result(messages, call_id, result)
        case kind if kind in _OUTPUTS:
            _add_output(messages, item, param)
        case kind:
            conversation.left_out.append((index, kind))


def _add_message(messages: Messages, item: Item, param: str) -> None:
    if item.role is None:
        raise InvalidRequest(f"'{param}': A message must have a role.", param)
    role = "system" if item.role == "developer" else item.role
    text = content_of(item.content, param)
    if role == "assistant" and messages and _is_reasoning(messages[-1]):
        messages[-1]["content"] = text
    else:
        messages.append({"role": role, "content": text})


def _reasoning(item: Item) -> str:
    """Return the text of the reasoning: itself, as it was encoded for the client, or its summary."""
    if isinstance(item.content, list) and (text := "".join(part.text or "" for part in item.content)):
        return text
    if own := decoded("reasoning", item.encrypted_content):
        return own
    return "\n\n".join(part.text for part in item.summary or [] if part.text)


def _call(item: Item, param: str) -> tuple[str, str, str] | None:
    """Return the called function, its arguments, and the id of the call; None: the item is no call that says something.

    Raises:
        InvalidRequest: the call of a function lacks a field.
    """
    call_id = item.call_id or item.id or ""
    extra: Mapping[str, Any] = item.model_extra or {}
    match item.type:
        case "function_call" | "custom_tool_call":
            if item.name is None or item.call_id is None:
                raise InvalidRequest(f"'{param}': A {item.type} must have a call_id and a name.", param)
            text = json.dumps({"input": item.input or ""}) if item.type == "custom_tool_call" else _json(item.arguments)
            return function_name(item.name, item.namespace), text, item.call_id
        case "local_shell_call":
            action = {name: value for name, value in (item.action or {}).items() if name not in ("type", "env")}
            return "local_shell", _json(action), call_id
        case "shell_call":
            action = {name: value for name, value in (item.action or {}).items() if value is not None}
            return "shell", _json(action), call_id
        case "apply_patch_call":
            return "apply_patch", _json(item.operation), call_id
        case "tool_search_call":
            return "tool_search", _json(item.arguments), call_id
        case "computer_call":
            return "computer", _json(item.action or extra.get("actions")), call_id
        case "mcp_call":
            label = extra.get("server_label")
            return (
                function_name(item.name or "mcp", label if isinstance(label, str) else None),
                (_json(item.arguments)),
                call_id,
            )
        case "code_interpreter_call":
            return "code_interpreter", _json({"code": extra.get("code") or ""}), call_id
        case "file_search_call" if extra.get("results"):
            return "file_search", _json({"queries": extra.get("queries") or []}), call_id
    return None


def _own_result(item: Item) -> str | None:
    """Return the result that a call has in itself because OpenAI's servers ran it; None: its result follows it."""
    extra: Mapping[str, Any] = item.model_extra or {}
    match item.type:
        case "mcp_call":
            return item.output if isinstance(item.output, str) else _json(extra.get("error") or "")
        case "code_interpreter_call":
            outputs = extra.get("outputs") or []
            logs = (each.get("logs") for each in outputs if isinstance(each, dict))
            return "\n".join(log for log in logs if isinstance(log, str))
        case "file_search_call":
            return _json(extra.get("results"))
    return None


_OUTPUTS: Final = (
    "function_call_output",
    "custom_tool_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "computer_call_output",
)


def _add_output(messages: Messages, item: Item, param: str) -> None:
    # The result of a local shell has the id of its call as its own.
    call_id = item.call_id or (item.id if item.type == "local_shell_call_output" else None)
    if call_id is None:
        raise InvalidRequest(f"'{param}': A {item.type} must have a call_id.", param)
    match item.output:
        case str() | None:
            content: Any = item.output or (item.status or "" if item.type == "apply_patch_call_output" else "")
        case dict(part) if part.get("type") == "computer_screenshot":
            content = content_of([ContentPart.model_validate(part)], param)
        case dict(other):
            content = _json(other)
        case list(parts) if all(isinstance(part, ContentPart) for part in parts):
            content = content_of(parts, param)  # type: ignore[arg-type]
        case list(outputs):
            content = "\n".join(_shell_output(each) for each in outputs if isinstance(each, dict))
    _add_result(messages, call_id, content)


def _shell_output(output: Mapping[str, Any]) -> str:
    """Return the output of one shell command as text."""
    streams = (output.get("stdout"), output.get("stderr"))
    if not any(isinstance(stream, str) for stream in streams):
        return _json(output)
    match output.get("outcome"):
        case {"type": "timeout"}:
            end = "The command was ended: it took too long."
        case {"exit_code": int(code)} if code:
            end = f"Exit code: {code}"
        case _:
            end = ""
    return "\n".join(text for text in (*streams, end) if isinstance(text, str) and text)


def _add_result(messages: Messages, call_id: str, content: Any) -> None:
    messages.append({"role": "tool", "tool_call_id": call_id, "content": content})


def _described(tools: Sequence[Tool]) -> str:
    """Return the tools that a search has found as text."""
    return _json([{"name": tool.name, "description": tool.description} for tool in tools])


def _json(value: Any) -> str:
    """Return a value as JSON text; text stays as it is, and nothing becomes an empty object."""
    if isinstance(value, str):
        return value
    return json.dumps({} if value is None else value, ensure_ascii=False, default=str)


def _is_reasoning(message: Mapping[str, Any]) -> bool:
    """Whether ``message`` is reasoning without the answer that follows it."""
    return "reasoning_content" in message and not message["content"] and "tool_calls" not in message


def _assistant(messages: Messages) -> dict[str, Any]:
    """Return the assistant's turn at the end of the conversation; an empty one is added if there is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]
