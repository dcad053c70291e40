"""The items of a conversation in /v1/responses: as clients send them, and as they are listed.

Source: https://platform.openai.com/docs/api-reference/responses/create#responses-create-input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.openai.responses.calls import new_id
from modelyard.api.openai.responses.content import ContentPart
from modelyard.api.openai.responses.tools import Tool
from modelyard.api.openai.tools import Tools
from modelyard.api.serving.bounded_items import Parts
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.errors import InvalidRequest

# Prefixes of ids as OpenAI's; any other item has "item".
_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
    "mcp_approval_response": "mcpa",
}


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
    tools: Tools[Tool] | Tools[dict[str, Any]] | None = Field(
        default=None, description="Tools that a search has found, or those of an MCP server."
    )
    status: str | None = None
    server_label: str | None = Field(default=None, description="The MCP server of a call, or of a list of tools.")
    approval_request_id: str | None = Field(
        default=None, description="The id of the `mcp_approval_request` that a response decides, or a call had."
    )
    approve: bool | None = Field(default=None, description="Of an `mcp_approval_response`: whether the call runs.")
    reason: str | None = Field(
        default=None, description="Of an `mcp_approval_response`: why the call does not run, for the model."
    )


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
