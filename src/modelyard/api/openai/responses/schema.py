"""Request bodies of /v1/responses.

Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.media.load import ImageReference, Reference
from modelyard.api.openai.conversation import InputAudio
from modelyard.api.openai.schema import (
    IGNORED,
    MAX_NAME_LENGTH,
    MAX_TOP_LOGPROBS,
    Effort,
    MaxTokens,
    refuse_unsupported,
)
from modelyard.api.openai.tools import (
    AllowedTools,
    AllowedToolsChoice,
    FunctionDefinition,
    FunctionName,
    JsonSchemaFormat,
    NamedFunction,
    ResponseFormat,
    ToolDefinition,
    Tools,
    chosen_tools,
)
from modelyard.api.serving.bounded_items import MAX_LABELS, Items, Labels, Parts, at_most
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.config.schema import Temperature, TopP
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Chat, Detail, Sampling
from modelyard.yard.requests.requests import Request

Messages = list[dict[str, Any]]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


class ContentPart(_Part):
    """One part of an item's content."""

    known_extras: ClassVar = PASSED_ON

    type: str
    text: str | None = None
    image_url: str | None = None
    input_audio: InputAudio | None = None
    detail: Detail | None = None


class Item(_Part):
    """One item of the input. Its type decides which fields are read."""

    known_extras: ClassVar = PASSED_ON

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | Parts[ContentPart] | None = None
    status: str | None = None


class Tool(_Part):
    """A function that the model may call, without the nesting of chat completions."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(_Part):
    """The function that the model must call, or the functions that it may call."""

    type: Literal["function", "allowed_tools"]
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: Tools[Tool] = []


class TextFormat(_Part):
    """The format that the text must follow."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(_Part):
    """OpenAI's ``text``."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(_Part):
    """OpenAI's ``reasoning``."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        default=None, description="Reasoning is returned in full, never as a summary."
    )
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(
        default=None, description="An older name of `summary`."
    )
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class StreamOptions(_Part):
    """OpenAI's ``stream_options``."""

    include_obfuscation: Literal[False] = Field(default=False, description="Events are never padded.")


# The values of ``include`` that are accepted. OpenAI's others belong to tools that run on its servers.
Included = Literal["message.output_text.logprobs", "reasoning.encrypted_content", "message.input_image.image_url"]

RESPONSES_HARMLESS: dict[str, tuple[Any, ...]] = {
    "access_programs": ([],),
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "prompt": (),
    "service_tier": ("auto", "default"),
}


def _one_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponsesRequest(_Part):
    """The body of ``POST /v1/responses``."""

    known_extras: ClassVar = frozenset(RESPONSES_HARMLESS)

    model: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    input: Annotated[Items[Item], BeforeValidator(_one_message, json_schema_input_type=str | Items[Item])] = Field(
        default=[], description="A text, or a list of messages, calls and their results."
    )
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    tools: Tools[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    include: Labels[Included] | None = Field(
        default=None,
        description="`message.output_text.logprobs` adds the logprobs of tokens. Reasoning is never encrypted, and "
        "images are listed as they were sent, with any value.",
    )
    stream_options: StreamOptions | None = None
    user: str | None = IGNORED
    safety_identifier: str | None = IGNORED
    prompt_cache_key: str | None = IGNORED
    prompt_cache_retention: str | None = IGNORED
    prompt_cache_options: dict[str, Any] | None = IGNORED
    metadata: Annotated[dict[str, str], Field(max_length=MAX_LABELS), at_most(MAX_LABELS)] | None = None
    truncation: Literal["disabled"] | None = None
    keep_alive: KeepAlive | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the response is stored, so that it can be retrieved and continued."""
        return self.store is not False

    @property
    def logprobs(self) -> int | None:
        """The number of alternatives whose logprobs are returned with each token; None: no logprobs."""
        is_included = "message.output_text.logprobs" in (self.include or ())
        return 0 if self.top_logprobs is None and is_included else self.top_logprobs

    def messages(self, before: Sequence[Mapping[str, Any]]) -> Messages:
        """Return the conversation without its instructions, as messages that follow those of ``before``.

        Raises:
            InvalidRequest: the input is empty, or an item lacks a field.
            UnsupportedOperation: a local model cannot read an item.
        """
        messages: Messages = [dict(message) for message in before]
        for index, item in enumerate(self.input):
            _add(messages, item, f"input[{index}]")
        if not messages:
            raise InvalidRequest("'input' is empty: give a text or at least one item.", "input")
        return messages

    def checked(self, messages: Messages) -> Request:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        refuse_unsupported(self, RESPONSES_HARMLESS)
        if self.background and not self.is_kept:
            raise InvalidRequest("'background' needs 'store': the response is retrieved later.", "background")
        defined = [_tool(tool, index) for index, tool in enumerate(self.tools or [])]
        tools, choice = chosen_tools(defined, self._choice())
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        effort = None if self.reasoning is None else self.reasoning.effort
        options = (
            {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort not in ("none", "off")}
        )
        chat = Chat((*system, *messages), tools, choice, self.parallel_tool_calls is not False, options)
        request = Request(
            prompt=chat,
            model=self.model,
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p),
            max_tokens=self.max_output_tokens,
        )
        text_format = self._format()
        return replace(
            request,
            response_format=None if text_format is None else text_format.to_constraint(),
            logprobs=self.logprobs,
        )

    def _choice(self) -> Any:
        choice = self.tool_choice
        if not isinstance(choice, ToolChoice):
            return choice
        if choice.type == "function":
            return NamedFunction(type="function", function=FunctionName(name=choice.name or ""))
        names = [NamedFunction(type="function", function=FunctionName(name=tool.name or "")) for tool in choice.tools]
        return AllowedToolsChoice(type="allowed_tools", allowed_tools=AllowedTools(mode=choice.mode, tools=names))

    def _format(self) -> ResponseFormat | None:
        text_format = None if self.text is None else self.text.format
        if text_format is None:
            return None
        schema = None
        if text_format.type == "json_schema":
            schema = JsonSchemaFormat(name=text_format.name, schema=text_format.schema_, strict=text_format.strict)
        return ResponseFormat(type=text_format.type, json_schema=schema)


def listed_item(item: Item) -> dict[str, Any]:
    """Return an item as /input_items lists it: with an id and a status, and its content as parts."""
    sent = {"type": item.type, **item.model_dump(exclude_none=True, exclude_unset=True)}
    prefix = {"message": "msg", "function_call": "fc", "reasoning": "rs"}.get(item.type, "item")
    listed = {"id": f"{prefix}_{uuid.uuid4().hex}", "status": "completed", **sent}
    if isinstance(item.content, str):
        is_answer = item.role == "assistant"
        part = {"type": "output_text", "annotations": [], "logprobs": []} if is_answer else {"type": "input_text"}
        listed["content"] = [{**part, "text": item.content}]
    return listed


def _tool(tool: Tool, index: int) -> ToolDefinition:
    if tool.type != "function" or not tool.name:
        raise InvalidRequest(
            f"'tools[{index}]': Only functions are supported, with a name; '{tool.type}' is not. Leave it out.",
            f"tools[{index}].type",
        )
    function = FunctionDefinition(
        name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
    )
    return ToolDefinition(type="function", function=function)


def _add(messages: Messages, item: Item, param: str) -> None:
    """Add an item as chat templates read it: a call becomes part of the assistant's message before it."""
    match item.type:
        case "message":
            if item.role is None:
                raise InvalidRequest(f"'{param}': A message must have a role.", param)
            role = "system" if item.role == "developer" else item.role
            text = _text(item.content, param) if role != "user" else _content(item.content, param)
            if role == "assistant" and messages and _is_reasoning(messages[-1]):
                messages[-1]["content"] = text
            else:
                messages.append({"role": role, "content": text})
        case "function_call" if item.status == "incomplete":
            # The text of a call that broke off is also a message, and clients send back both.
            pass
        case "function_call":
            if item.name is None or item.call_id is None:
                raise InvalidRequest(f"'{param}': A function_call must have a call_id, a name and arguments.", param)
            function = {"name": item.name, "arguments": item.arguments or "{}"}
            call = {"id": item.call_id, "type": "function", "function": function}
            _assistant(messages).setdefault("tool_calls", []).append(call)
        case "function_call_output":
            if item.call_id is None:
                raise InvalidRequest(f"'{param}': A function_call_output must have a call_id.", param)
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output, param)})
        case "reasoning":
            reasoning = item.content if isinstance(item.content, list) else []
            text = "".join(part.text or "" for part in reasoning)
            if text:
                messages.append({"role": "assistant", "content": "", "reasoning_content": text})
        case kind:
            raise UnsupportedOperation(f"'{param}': Items of type '{kind}' are not supported.", param)


def _is_reasoning(message: Mapping[str, Any]) -> bool:
    """Whether ``message`` is reasoning without the answer that follows it."""
    return "reasoning_content" in message and not message["content"] and "tool_calls" not in message


def _assistant(messages: Messages) -> dict[str, Any]:
    """Return the assistant's message at the end of the conversation; an empty one is added if there is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _content(content: str | list[ContentPart] | None, param: str) -> str | tuple[str | Reference, ...]:
    """Return the text of the content; with images or sound, a tuple of texts and references."""
    if not isinstance(content, list) or all(part.type not in ("input_image", "input_audio") for part in content):
        return _text(content, param)
    parts: list[str | Reference] = []
    for index, part in enumerate(content):
        part_param = f"{param}.content[{index}]"
        if part.type == "input_audio":
            if part.input_audio is None:
                raise InvalidRequest(
                    f"'{part_param}': An input_audio must have input_audio.", f"{part_param}.input_audio"
                )
            parts.append(part.input_audio.reference(f"{part_param}.input_audio"))
        elif part.type != "input_image":
            parts.append(_text([part], part_param))
        elif part.image_url is None:
            raise UnsupportedOperation(
                f"'{part_param}': An input_image must have an image_url: no files are kept.", part_param
            )
        else:
            parts.append(ImageReference(part.image_url, part.detail or "auto", f"{part_param}.image_url"))
    return tuple(parts)


def _text(content: str | list[ContentPart] | None, param: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type not in ("input_text", "output_text", "text") or part.text is None:
            raise UnsupportedOperation(f"'{param}': Content of type '{part.type}' is not supported here.", param)
    return "".join(part.text or "" for part in content)
