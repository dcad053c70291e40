"""The items of a conversation in /v1/responses as turns of the model's template.

A history may come from any server and any model. What an API once answered with is therefore never refused: an item
becomes a turn, or is left out where it says nothing to this model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from modelyard.agent.request import DecidedCall
from modelyard.api.openai.responses.content import ContentPart, content_of
from modelyard.api.openai.responses.items import Item
from modelyard.api.openai.responses.mcp_items import call_of, result_text
from modelyard.api.openai.responses.opaque import decoded
from modelyard.api.openai.responses.tools import Tool, function_name
from modelyard.api.serving.request_servers import ToolNames
from modelyard.errors import InvalidRequest
from modelyard.protocol.deltas import ToolCall
from modelyard.protocol.prompts import ends_in_an_answer

Messages = list[dict[str, Any]]

_BROKEN_OFF: Final = "The call was broken off, so its result is not known."

_SUMMARY: Final = "Summary of the conversation so far:\n\n"


@dataclass(slots=True)
class Conversation:
    """The turns of a conversation.

    Attributes:
        messages: the turns, as chat templates read them.
        found_tools: the tools that items add to those of the request.
        left_out: the items that say nothing to the model, as their index and their type.
        ends_in_an_answer: whether the last item is a message of the assistant, from whose end the answer goes on.
        listed: the tools of MCP servers that it lists.
        decided: the calls that the client has decided about, and which end the conversation, without their results.
        server_turn: the round of the ``mcp_call`` that is its last item, and the turn with its call; None: the last
            item is another one.
    """

    messages: Messages = field(default_factory=list)
    found_tools: list[Tool] = field(default_factory=list)
    left_out: list[tuple[int, str]] = field(default_factory=list)
    ends_in_an_answer: bool = False
    listed: dict[str, frozenset[str]] = field(default_factory=dict)
    decided: list[DecidedCall] = field(default_factory=list)
    server_turn: tuple[str, dict[str, Any]] | None = None


def conversation_of(
    before: Iterable[Item], items: Sequence[Item], param: str = "input", names: ToolNames = MappingProxyType({})
) -> Conversation:
    """Return the conversation of ``items`` that follow those of ``before``; ``left_out`` is about ``items`` alone.

    Args:
        before: earlier items.
        items: the items of the request.
        param: the field of the request that has them, for errors.
        names: of the functions by which the model calls tools of MCP servers.

    Raises:
        InvalidRequest: an item lacks a field, or decides about a call that the conversation does not have.
        UnsupportedOperation: a part of an item is of a kind that no model reads here.
    """
    conversation = Conversation()
    earlier = list(before)
    for item in earlier:
        _add(conversation, item, "input", 0, names)
    conversation.left_out.clear()
    for index, item in enumerate(items):
        _add(conversation, item, f"{param}[{index}]", index, names)
    _decide(conversation, [*earlier, *items], len(earlier), param, names)
    is_message = bool(items) and items[-1].type == "message"
    conversation.ends_in_an_answer = is_message and ends_in_an_answer(conversation.messages)
    return conversation


def _decide(conversation: Conversation, items: Sequence[Item], start: int, param: str, names: ToolNames) -> None:
    """Add the calls that the client has decided about, and which have no result yet, as a turn of the assistant.

    Args:
        conversation: of all items.
        items: all items.
        start: the first one of the request.
        param: the field of the request that has its items.
        names: as for ``conversation_of``.

    Raises:
        InvalidRequest: an item of the request decides about a call that the conversation does not have.
    """
    decisions = [(index, item) for index, item in enumerate(items) if item.type == "mcp_approval_response"]
    if not decisions:
        return
    requests: dict[str | None, Item] = {
        item.id: item for item in items if item.type == "mcp_approval_request" and item.id is not None
    }
    settled = {item.approval_request_id for item in items if item.type == "mcp_call"} - {None}
    for index, item in decisions:
        asked = None if item.approve is None else requests.get(item.approval_request_id)
        # Items that are added to a stored conversation come without those before them.
        if asked is None and index >= start and param == "input":
            raise InvalidRequest(
                f"'{param}[{index - start}]': An mcp_approval_response must have 'approve', and the id of an "
                "mcp_approval_request of the conversation as its 'approval_request_id'.",
                f"{param}[{index - start}].approval_request_id",
            )
        if asked is None or asked.id in settled:
            continue
        settled.add(asked.id)
        call = ToolCall(asked.id or "", _remote_name(asked, names), _json(asked.arguments))
        _add_call(_assistant(conversation.messages), call.id, call.name, call.arguments)
        conversation.decided.append(DecidedCall(call, bool(item.approve), item.reason or ""))
    conversation.left_out = [
        (index, kind)
        for index, kind in conversation.left_out
        if kind != "mcp_approval_request" or items[start + index].id not in settled
    ]


def _own_names(item: Item) -> Iterable[str]:
    """Return the names of the tools that an ``mcp_list_tools`` lists."""
    for tool in item.tools or []:
        name = tool.name if isinstance(tool, Tool) else tool.get("name")
        if isinstance(name, str):
            yield name


def _remote_name(item: Item, names: ToolNames) -> str:
    """Return the function by which the model calls the tool of an MCP server that ``item`` names."""
    name, label = item.name or "mcp", item.server_label
    return names.get((label or "", name)) or function_name(name, label)


def _add(conversation: Conversation, item: Item, param: str, index: int, names: ToolNames) -> None:
    """Add an item: a call becomes a part of the assistant's turn before it."""
    messages = conversation.messages
    last_turn, conversation.server_turn = conversation.server_turn, None
    match item.type:
        case "mcp_call":
            call_id, made_in = call_of(item.id or "")
            turn = last_turn[1] if last_turn is not None and last_turn[0] == made_in else _assistant(messages)
            # A call that was approved ran before the first round.
            conversation.server_turn = (made_in, turn) if made_in and not item.approval_request_id else None
            _add_call(turn, call_id, _remote_name(item, names), _json(item.arguments))
            error = (item.model_extra or {}).get("error")
            result = result_text(item.output, error)
            _add_result(messages, call_id, (_json(error) if error else _BROKEN_OFF) if result is None else result)
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
            found = [tool for tool in item.tools or [] if isinstance(tool, Tool)]
            conversation.found_tools += found
            if item.type == "tool_search_output" and item.call_id is not None:
                _add_result(messages, item.call_id, _described(found))
        case "mcp_list_tools":
            conversation.listed[item.server_label or ""] = frozenset(_own_names(item))
        case "mcp_approval_response":
            # They are read when all items are known.
            pass
        case _ if (call := _call(item, param)) is not None:
            name, arguments, call_id = call
            _add_call(_assistant(messages), call_id, name, arguments)
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


def _add_call(turn: dict[str, Any], call_id: str, name: str, arguments: str) -> None:
    turn.setdefault("tool_calls", []).append(
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    )


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
        case "code_interpreter_call":
            return "code_interpreter", _json({"code": extra.get("code") or ""}), call_id
        case "file_search_call" if extra.get("results"):
            return "file_search", _json({"queries": extra.get("queries") or []}), call_id
    return None


def _own_result(item: Item) -> str | None:
    """Return the result that a call has in itself because OpenAI's servers ran it; None: its result follows it."""
    extra: Mapping[str, Any] = item.model_extra or {}
    match item.type:
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
