"""Request bodies of Anthropic's endpoints.

Source: https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from modelyard.api.anthropic.context_edits import AppliedEdit, ContextManagement, edited
from modelyard.api.anthropic.signatures import recalled
from modelyard.api.anthropic.tools import Choice, OfferedTools, Tool, offered_tools
from modelyard.api.errors.anthropic import ThreadsNotHeld
from modelyard.api.media.load import Reference
from modelyard.api.media.parts import READ_FIELDS, Said, Thought, content_of, image_of, read_part
from modelyard.api.openai.sampling import MAX_STOP_LENGTH, MAX_STOPS, MAX_TOKENS
from modelyard.api.openai.schema import IGNORED, MAX_NAME_LENGTH, refuse_unsupported
from modelyard.api.openai.tools import Tools, schema_format
from modelyard.api.serving.bounded_items import Labels, Messages, Parts
from modelyard.api.serving.reasoning import ReasoningRequest, reasoning_of
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.config.model import TopK, TopP
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, Sampling, ends_in_an_answer
from modelyard.yard.requests.requests import Request, TokenizeRequest


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
    # Every prompt is cached.
    known_extras: ClassVar[Collection[str]] = frozenset({"cache_control"})


class Block(_Part):
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


class Message(_Part):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


class Thinking(_Part):
    """Whether the model reasons."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = Field(
        default=None, ge=0, description="How many tokens may be reasoning, which then ends; 0: none."
    )
    display: Literal["summarized", "omitted"] | None = Field(
        default=None,
        description="`omitted`: blocks of reasoning are empty, and their signatures bring it back to the model. "
        "Otherwise reasoning is returned in full, never as a summary.",
    )


class Format(_Part):
    """A schema that the answer must follow."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(_Part):
    """Anthropic's ``output_config``."""

    format: Format | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


# A field that asks for something that only Anthropic's servers do.
ELSEWHERE: Any = Field(default=None, description="Has no effect, and is then listed in `x-modelyard-ignored`.")

# Fields of Anthropic's that are not supported -> their values without an effect.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "billing_policy": (),
    "compaction": (),
    "diagnostics": (),
    "fallback_credit_token": (),
    "thread": (),
}


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
    cache_control: dict[str, Any] | None = Field(
        default=None, description="Accepted, here and in all parts: every prompt is kept for those that begin with it."
    )
    container: str | dict[str, Any] | None = ELSEWHERE
    fallbacks: Labels[Any] | None = ELSEWHERE
    inference_geo: str | None = ELSEWHERE
    mcp_servers: Labels[Any] | None = ELSEWHERE
    speed: str | None = ELSEWHERE
    service_tier: str | None = IGNORED
    user_profile_id: str | None = IGNORED
    workspace_id: str | None = IGNORED

    def without_effect(self) -> Iterator[str]:
        """Yield the parts that ask for something that does not happen."""
        yield from (name for name in ("container", "fallbacks", "mcp_servers") if getattr(self, name))
        if self.inference_geo not in (None, "global", "not_available"):
            yield "inference_geo"
        if self.speed not in (None, "standard"):
            yield "speed"
        yield from self._offered.left_out

    @property
    def _offered(self) -> OfferedTools:
        return offered_tools(self.tools or [], self.tool_choice)

    def chat(self) -> Chat:
        """Return the conversation in the form that chat templates read.

        Raises:
            InvalidRequest: a block, or a tool, is not supported.
        """
        turns = tuple(self._edited()[0])
        offered = self._offered
        has_one_call = self.tool_choice is not None and self.tool_choice.disable_parallel_tool_use
        return Chat(
            turns,
            offered.functions,
            offered.choice,
            not has_one_call,
            self.reasoning_request().options,
            continues=ends_in_an_answer(turns),
        )

    def _edited(self) -> tuple[list[dict[str, Any]], list[AppliedEdit]]:
        """Return the turns of the conversation as they become the prompt, and the edits that have shortened it."""
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": _content(self.system, "system")})
        for index, message in enumerate(self.messages):
            messages += _turns(message, f"messages[{index}].content")
        if messages and messages[-1]["role"] == "assistant" and isinstance(text := messages[-1]["content"], str):
            # Anthropic refuses white space at the end, which models write as a part of the next word.
            messages[-1]["content"] = text.rstrip()
        return edited(messages, () if self.context_management is None else self.context_management.edits)

    def applied_edits(self) -> list[AppliedEdit] | None:
        """Return the edits that have shortened the conversation; None if the request has no ``context_management``.

        Raises:
            InvalidRequest: a block, or a tool, is not supported.
        """
        return None if self.context_management is None else self._edited()[1]

    def refuse_unsupported(self) -> None:
        """Refuse known fields that are not supported, unless their value has no effect.

        Raises:
            InvalidRequest: such a field has another value.
        """
        refuse_unsupported(self, HARMLESS)

    def response_format(self) -> dict[str, Any] | None:
        """Return the constraint for the answer; None: there is none.

        Raises:
            InvalidRequest: the older and the newer field have different schemas.
        """
        older = self.output_format
        newer = None if self.output_config is None else self.output_config.format
        if older is not None and newer is not None and older != newer:
            raise InvalidRequest(
                "'output_format' and 'output_config.format' exclude each other. Send the latter.", "output_format"
            )
        if newer is not None:
            return schema_format(newer.schema_, "output_config.format")
        return None if older is None else schema_format(older.schema_, "output_format")

    def reasoning_request(self) -> ReasoningRequest:
        """Return what the request says about reasoning."""
        thinking = self.thinking
        budget = None if thinking is None else thinking.budget_tokens
        return reasoning_of(
            effort=None if self.output_config is None else self.output_config.effort,
            is_on=None if thinking is None else thinking.type != "disabled" and budget != 0,
            budget=budget,
        )


class MessagesRequest(_PromptFields):
    """The body of ``POST /v1/messages``."""

    known_extras: ClassVar = frozenset(HARMLESS)

    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
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

    @property
    def omits_thinking(self) -> bool:
        """Whether the text of reasoning is left out of the answer."""
        return self.thinking is not None and self.thinking.display == "omitted"

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
            reasoning_budget=self.reasoning_request().budget,
        )


# Fields of a request for an answer, which clients also send to count its tokens.
_OF_ANSWERS: Final = frozenset({"max_tokens", "metadata", "stop_sequences", "stream", "temperature", "top_k", "top_p"})


class CountRequest(_PromptFields):
    """The body of ``POST /v1/messages/count_tokens``. Fields that only matter for an answer change nothing."""

    known_extras: ClassVar = _OF_ANSWERS.union(HARMLESS)

    def checked(self) -> TokenizeRequest:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        self.refuse_unsupported()
        return TokenizeRequest(self.chat(), self.model)

    def unedited(self) -> CountRequest | None:
        """Return the request without edits of the conversation; None if there are none."""
        has_edits = self.context_management is not None and self.context_management.edits
        return self.model_copy(update={"context_management": None}) if has_edits else None


def _turns(message: Message, param: str) -> list[dict[str, Any]]:
    """Return the turns of chat templates for one message: results of tools are turns of their own, before the rest."""
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
            case _:
                said += _said(block, where)
    content, thoughts = content_of(said, "\n")
    if said or calls or not turns:
        turn: dict[str, Any] = {"role": message.role, "content": content}
        if calls:
            turn["tool_calls"] = calls
        if thoughts:
            turn["reasoning_content"] = thoughts
        turns.append(turn)
    return turns


def _call(block: Block, param: str) -> dict[str, Any]:
    if block.name is None or block.id is None:
        raise InvalidRequest(f"'{param}': A tool_use block must have an id, a name and an input.", param)
    return {
        "id": block.id,
        "type": "function",
        "function": {"name": block.name, "arguments": {} if block.input is None else block.input},
    }


def _result(block: Block, param: str) -> dict[str, Any]:
    if block.tool_use_id is None:
        raise InvalidRequest(f"'{param}': A tool_result block must have a tool_use_id.", param)
    result: str | tuple[str | Reference, ...] = ""
    if isinstance(block.content, str):
        result = block.content
    elif isinstance(block.content, dict):
        result = json.dumps(block.content, ensure_ascii=False)
    elif block.content is not None:
        result = _content(block.content, f"{param}.content")
    if block.is_error:
        result = f"Error: {result}" if isinstance(result, str) else ("Error: ", *result)
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": result}


def _content(blocks: list[Block], param: str) -> str | tuple[str | Reference, ...]:
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
