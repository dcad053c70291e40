"""Request bodies of Anthropic's endpoints.

Source: https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.errors.anthropic import ThreadsNotHeld
from modelyard.api.media.load import ImageReference
from modelyard.api.openai.sampling import MAX_STOP_LENGTH, MAX_STOPS
from modelyard.api.openai.schema import IGNORED, MAX_NAME_LENGTH, MaxTokens, refuse_unsupported
from modelyard.api.openai.tools import Tools, schema_format
from modelyard.api.serving.bounded_items import Labels, Messages, Parts
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.config.schema import TopK, TopP
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Chat, NamedTool, Sampling, ToolChoice
from modelyard.yard.requests.requests import Request, TokenizeRequest


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
    # Every prompt is cached.
    known_extras: ClassVar[Collection[str]] = frozenset({"cache_control"})


class Block(_Part):
    """One block of a message's content. Its type decides which fields are read."""

    # What the API itself adds to the blocks that it returns, and the model cannot read.
    known_extras: ClassVar = frozenset({"cache_control", "caller", "data", "signature"})

    type: str
    text: str | None = None
    thinking: str | None = None
    source: dict[str, Any] | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | Parts[Block] | None = None
    is_error: bool | None = None


def _blocks(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Blocks = Annotated[Parts[Block], BeforeValidator(_blocks, json_schema_input_type=str | Parts[Block])]


class Message(_Part):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


class Tool(_Part):
    """A function that the model may call."""

    name: str = Field(default="", max_length=MAX_NAME_LENGTH)
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class Choice(_Part):
    """Anthropic's ``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(_Part):
    """Whether the model reasons."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = Field(
        default=None, description="Accepted, but not enforced: the model ends its reasoning itself."
    )
    display: Literal["summarized"] | None = Field(
        default=None, description="Reasoning is returned in full, never as a summary."
    )


class Format(_Part):
    """A schema that the answer must follow."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(_Part):
    """Anthropic's ``output_config``."""

    format: Format | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


# Fields of Anthropic's that are not supported -> their values without an effect.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "billing_policy": (),
    "compaction": (),
    "container": (),
    "diagnostics": (),
    "fallback_credit_token": (),
    "fallbacks": ([],),
    "inference_geo": ("global",),
    "mcp_servers": ([],),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),
    "thread": (),
}


class ContextEdit(_Part):
    """An edit of the conversation before it becomes the prompt."""

    type: str


class ContextManagement(_Part):
    """Anthropic's ``context_management``."""

    edits: Labels[ContextEdit] = []


class _PromptFields(_Part):
    """The fields that both endpoints share."""

    model: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    messages: Messages[Message]
    system: Blocks | None = None
    tools: Tools[Tool] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    context_management: ContextManagement | None = None
    keep_alive: KeepAlive | None = None
    betas: Labels[str] | None = IGNORED
    cache_control: dict[str, Any] | None = IGNORED
    user_profile_id: str | None = IGNORED
    workspace_id: str | None = IGNORED

    def chat(self) -> Chat:
        """Return the conversation in the form that chat templates read.

        Raises:
            InvalidRequest: a block, or a tool, is not supported.
        """
        messages = [{"role": "system", "content": _text(self.system, "system")}] if self.system else []
        for index, message in enumerate(self.messages):
            messages += _turns(message, f"messages[{index}].content")
        tools = [_tool(tool, index) for index, tool in enumerate(self.tools or [])]
        choice = self.tool_choice or Choice(type="auto")
        return Chat(
            tuple(messages), tuple(tools), _choice(choice, tools), not choice.disable_parallel_tool_use, self._options()
        )

    def refuse_unsupported(self) -> None:
        """Refuse known fields that are not supported, unless their value has no effect.

        Raises:
            InvalidRequest: such a field has another value.
        """
        refuse_unsupported(self, HARMLESS)
        for edit in self.context_management.edits if self.context_management is not None else []:
            # The chat template decides which reasoning of earlier turns stays in the prompt.
            if not edit.type.startswith("clear_thinking"):
                raise InvalidRequest(
                    f"'context_management': Edits of type '{edit.type}' are not supported here. Leave it out.",
                    "context_management",
                )

    def response_format(self) -> dict[str, Any] | None:
        """Return the constraint for the answer; None: there is none."""
        answer_format = self.output_format
        if self.output_config is not None and self.output_config.format is not None:
            answer_format = self.output_config.format
        return None if answer_format is None else schema_format(answer_format.schema_)

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.output_config is not None and self.output_config.effort is not None:
            options["reasoning_effort"] = self.output_config.effort
        if self.thinking is not None:
            options["enable_thinking"] = self.thinking.type != "disabled"
        return options


class MessagesRequest(_PromptFields):
    """The body of ``POST /v1/messages``."""

    max_tokens: MaxTokens
    stream: bool | None = None
    stop_sequences: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]],
            Field(max_length=MAX_STOPS, fail_fast=True),
        ]
        | None
    ) = None
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    metadata: dict[str, Any] | None = IGNORED

    def checked(self) -> Request:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        if (self.model_extra or {}).get("thread") is not None:
            raise ThreadsNotHeld
        self.refuse_unsupported()
        return Request(
            prompt=self.chat(),
            model=self.model,
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
            max_tokens=self.max_tokens,
            stop=tuple(self.stop_sequences or ()),
            response_format=self.response_format(),
        )


class CountRequest(_PromptFields):
    """The body of ``POST /v1/messages/count_tokens``. Fields that only matter for an answer are ignored."""

    def checked(self) -> TokenizeRequest:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        self.refuse_unsupported()
        return TokenizeRequest(self.chat(), self.model)


def _turns(message: Message, param: str) -> list[dict[str, Any]]:
    """Return the turns of chat templates for one message: results of tools are turns of their own, before the rest."""
    turns: list[dict[str, Any]] = []
    content: list[Block] = []
    calls: list[dict[str, Any]] = []
    reasoning: list[str] = []
    for index, block in enumerate(message.content):
        match block.type:
            case "tool_result" if message.role == "user":
                turns.append(_result(block, f"{param}[{index}]"))
            case "tool_use" if message.role == "assistant":
                calls.append(_call(block, f"{param}[{index}]"))
            case "thinking" if message.role == "assistant":
                reasoning.append(block.thinking or "")
            case "redacted_thinking":
                pass
            case _:
                content.append(block)
    if content or calls or not turns:
        turn: dict[str, Any] = {"role": message.role, "content": _content(content, param)}
        if calls:
            turn["tool_calls"] = calls
        if reasoning:
            turn["reasoning_content"] = "\n".join(reasoning)
        turns.append(turn)
    return turns


def _call(block: Block, param: str) -> dict[str, Any]:
    if block.name is None or block.id is None:
        raise InvalidRequest(f"'{param}': A tool_use block must have an id, a name and an input.", param)
    arguments = json.dumps(block.input or {}, ensure_ascii=False)
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _result(block: Block, param: str) -> dict[str, Any]:
    if block.tool_use_id is None:
        raise InvalidRequest(f"'{param}': A tool_result block must have a tool_use_id.", param)
    result = block.content if isinstance(block.content, str) else _content(block.content or [], f"{param}.content")
    if block.is_error:
        result = f"Error: {result}" if isinstance(result, str) else ("Error: ", *result)
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": result}


def _content(blocks: list[Block], param: str) -> str | tuple[str | ImageReference, ...]:
    """Return the text of the blocks; with images, a tuple of texts and references."""
    if all(block.type != "image" for block in blocks):
        return _text(blocks, param)
    return tuple(
        _image(block.source or {}, f"{param}[{index}].source") if block.type == "image" else _text([block], param)
        for index, block in enumerate(blocks)
    )


def _image(source: Mapping[str, Any], param: str) -> ImageReference:
    match source:
        case {"type": "base64", "data": str(data)}:
            return ImageReference(f"data:;base64,{data}", "auto", param)
        case {"type": "url", "url": str(url)}:
            return ImageReference(url, "auto", param)
    raise UnsupportedOperation(
        f"'{param}': An image must have a source of type 'base64', with 'data', or of type 'url', with 'url'.", param
    )


def _text(blocks: list[Block], param: str) -> str:
    for block in blocks:
        if block.type != "text" or block.text is None:
            raise UnsupportedOperation(f"'{param}': A block of type '{block.type}' is not supported here.", param)
    return "\n".join(block.text or "" for block in blocks)


def _tool(tool: Tool, index: int) -> dict[str, Any]:
    if tool.type not in (None, "custom") or not tool.name:
        raise InvalidRequest(
            f"'tools[{index}]': Only tools of the caller are supported, with a name and an input_schema; "
            f"'{tool.type}' runs on Anthropic's servers. Leave it out.",
            f"tools[{index}].type",
        )
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _choice(choice: Choice, tools: list[dict[str, Any]]) -> ToolChoice:
    match choice.type:
        case "any":
            if not tools:
                raise InvalidRequest("'tool_choice' is 'any', but there are no tools. Give some in 'tools'.", "tools")
            return "required"
        case "tool":
            names = [tool["function"]["name"] for tool in tools]
            if choice.name not in names:
                known = ", ".join(names) or "none"
                raise InvalidRequest(
                    f"'tool_choice' names '{choice.name}', which is not one of the tools: {known}.", "tool_choice"
                )
            return NamedTool(choice.name or "")
        case kind:
            return kind
