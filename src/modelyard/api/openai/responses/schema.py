"""Request bodies of /v1/responses and its neighbours.

Source: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.agent.tools import ServerTool
from modelyard.api.openai.reasoning_fields import Budget, Effort
from modelyard.api.openai.responses.history import Conversation
from modelyard.api.openai.responses.items import Item
from modelyard.api.openai.responses.tools import (
    OfferedTools,
    Tool,
    ToolChoice,
    choice_of,
    functions_after,
    mcp_servers_of,
    offered_tools,
    served_after,
)
from modelyard.api.openai.schema import (
    IGNORED,
    MAX_NAME_LENGTH,
    MAX_TOP_LOGPROBS,
    MaxTokens,
    refuse_unsupported,
)
from modelyard.api.openai.tools import JsonSchemaFormat, ResponseFormat, Tools
from modelyard.api.serving.bounded_items import MAX_LABELS, Items, Labels, at_most
from modelyard.api.serving.reasoning import ReasoningRequest, reasoning_of
from modelyard.api.serving.request_servers import NamedServer, with_definitions
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.config.model import FrequencyPenalty, PresencePenalty, Temperature, TopP
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, Sampling
from modelyard.yard.requests.requests import Request


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


class TextFormat(_Part):
    """The format that the text must follow."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(_Part):
    """OpenAI's ``text``."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = Field(
        default=None, description="Has no effect: ask for short or long answers in the instructions."
    )


class Reasoning(_Part):
    """OpenAI's ``reasoning``."""

    effort: Effort | None = None
    max_tokens: Budget | None = Field(default=None, description="How many tokens may be reasoning.")
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

    include_obfuscation: bool | None = Field(
        default=None,
        description="Whether events have a field `obfuscation`, which hides how long pieces of text are; default: no.",
    )


class ConversationReference(_Part):
    """OpenAI's ``conversation``."""

    id: Annotated[str, Field(max_length=MAX_NAME_LENGTH)]


HONOURED_INCLUDES: Final = ("message.output_text.logprobs", "reasoning.encrypted_content")

RESPONSES_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "access_programs": ([],),
    "background_options": (),
    "image": (),
    "moderation": (),
    "prompt": (),
}

_TIERS: Final = ("auto", "default", "standard_only")


def _one_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _reference(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


class ConversationFields(_Part):
    """What a response is an answer to: the fields that responses, their counts and their compactions share."""

    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    input: Annotated[Items[Item], BeforeValidator(_one_message, json_schema_input_type=str | Items[Item])] = Field(
        default=[], description="A text, or a list of messages, calls and their results."
    )
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    keep_alive: KeepAlive | None = None


class PromptFields(ConversationFields):
    """What decides about the prompt: the conversation, the tools, and the reasoning."""

    conversation: Annotated[
        ConversationReference | None,
        BeforeValidator(_reference, json_schema_input_type=str | ConversationReference | None),
    ] = Field(
        default=None,
        description='A stored conversation, as its id or `{"id": …}`: its items come before the input, and the '
        "input and the answer are added to it.",
    )
    tools: Tools[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        default=None,
        description="`auto`: the oldest turns are left out of a conversation that is too long, and the header "
        "`x-modelyard-ignored` says how many items. `disabled`: it is refused.",
    )

    @property
    def may_call_tools(self) -> bool:
        """Whether the request lets its model call tools."""
        return self.tool_choice != "none"

    def named_servers(self) -> list[NamedServer]:
        """Return the MCP servers that the request names.

        Raises:
            InvalidRequest: a tool lacks its label, two have the same, or a configured server gets headers.
        """
        return mcp_servers_of(self.tools or [])

    def offered(self, conversation: Conversation, served: Sequence[ServerTool] = ()) -> OfferedTools:
        """Return the tools that the model may call; ``served`` are those that this server runs.

        Raises:
            InvalidRequest: a tool lacks its name, or two have the same.
        """
        return offered_tools(self.tools or [], conversation.found_tools, served)

    def chat(self, conversation: Conversation, offered: OfferedTools) -> Chat:
        """Return the prompt.

        Raises:
            InvalidRequest: the conversation is empty, or the tool choice names a tool that does not exist.
        """
        if not conversation.messages:
            raise InvalidRequest("'input' is empty: give a text or at least one item.", "input")
        functions, choice = functions_after(self.tool_choice, offered)
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return Chat(
            (*system, *conversation.messages),
            functions,
            choice,
            self.parallel_tool_calls is not False,
            self.reasoning_request().options,
            continues=conversation.ends_in_an_answer,
        )

    def counted(self, conversation: Conversation, offered: OfferedTools) -> Chat:
        """Return the prompt with the tools that this server runs.

        Raises:
            InvalidRequest: as ``chat``.
        """
        return with_definitions(self.chat(conversation, offered), served_after(self.tool_choice, offered))

    def reasoning_request(self) -> ReasoningRequest:
        """Return what the request says about reasoning."""
        return reasoning_of(
            effort=None if self.reasoning is None else self.reasoning.effort,
            budget=None if self.reasoning is None else self.reasoning.max_tokens,
        )

    def ignored(self, conversation: Conversation, offered: OfferedTools) -> Iterator[str]:
        """Yield the paths of the parts that have no effect on the answer."""
        yield from offered.ignored
        yield from (f"input[{index}] ({kind})" for index, kind in conversation.left_out)
        if not choice_of(self.tool_choice, offered)[1]:
            yield "tool_choice"
        if self.text is not None and self.text.verbosity not in (None, "medium"):
            yield "text.verbosity"
        if self.reasoning is not None:
            yield from (
                f"reasoning.{name}" for name in ("summary", "generate_summary") if getattr(self.reasoning, name)
            )


class ResponsesRequest(PromptFields):
    """The body of ``POST /v1/responses``."""

    known_extras: ClassVar = frozenset(RESPONSES_HARMLESS)

    max_output_tokens: MaxTokens | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="How many calls this server runs; the model reads that further calls are not run."
    )
    temperature: Temperature | None = None
    top_p: TopP | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    include: Labels[str] | None = Field(
        default=None,
        description="`message.output_text.logprobs` adds the logprobs of tokens, `reasoning.encrypted_content` the "
        "reasoning in the form in which it may be sent back: in base64, not encrypted. Other values have no effect.",
    )
    stream_options: StreamOptions | None = None
    service_tier: str | None = Field(default=None, max_length=MAX_NAME_LENGTH, description="Has no effect.")
    context_management: Labels[Any] | None = Field(
        default=None, description="Has no effect: compact a conversation with `/v1/responses/compact`."
    )
    user: str | None = IGNORED
    safety_identifier: str | None = IGNORED
    prompt_cache_key: str | None = IGNORED
    prompt_cache_retention: str | None = IGNORED
    prompt_cache_options: dict[str, Any] | None = IGNORED
    metadata: Annotated[dict[str, str], Field(max_length=MAX_LABELS), at_most(MAX_LABELS)] | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the response is stored, so that it can be retrieved and continued."""
        return self.store is not False

    @property
    def encodes_reasoning(self) -> bool:
        """Whether reasoning is also returned in the form in which it may be sent back."""
        return "reasoning.encrypted_content" in (self.include or ())

    @property
    def obfuscates(self) -> bool:
        """Whether events hide the lengths of the pieces of text."""
        return self.stream_options is not None and self.stream_options.include_obfuscation is True

    @property
    def logprobs(self) -> int | None:
        """The number of alternatives whose logprobs are returned with each token; None: no logprobs."""
        is_included = "message.output_text.logprobs" in (self.include or ())
        return 0 if self.top_logprobs is None and is_included else self.top_logprobs

    def checked(self, conversation: Conversation, offered: OfferedTools) -> Request:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        refuse_unsupported(self, RESPONSES_HARMLESS)
        if self.background and not self.is_kept:
            raise InvalidRequest("'background' needs 'store': the response is retrieved later.", "background")
        if self.conversation is not None and self.previous_response_id is not None:
            raise InvalidRequest(
                "'conversation' and 'previous_response_id' exclude each other. Leave one out.", "conversation"
            )
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("'stream_options' needs 'stream': true.", "stream_options")
        request = Request(
            prompt=self.chat(conversation, offered),
            model=self.model,
            sampling=Sampling(
                temperature=self.temperature,
                top_p=self.top_p,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
            ),
            max_tokens=self.max_output_tokens,
        )
        text_format = self._format()
        return replace(
            request,
            response_format=None if text_format is None else text_format.to_constraint() | {"param": "text.format"},
            reasoning_budget=self.reasoning_request().budget,
            logprobs=self.logprobs,
        )

    def ignored(self, conversation: Conversation, offered: OfferedTools) -> Iterator[str]:
        """Yield the paths of the parts that have no effect on the answer."""
        yield from super().ignored(conversation, offered)
        yield from (f"include ({value})" for value in self.include or () if value not in HONOURED_INCLUDES)
        if self.service_tier not in (None, *_TIERS):
            yield "service_tier"
        others: Mapping[str, Any] = {
            "context_management": self.context_management,
            "prompt_cache_retention": self.prompt_cache_retention,
            "prompt_cache_options": self.prompt_cache_options,
        }
        yield from (name for name, value in others.items() if value)

    def _format(self) -> ResponseFormat | None:
        text_format = None if self.text is None else self.text.format
        if text_format is None:
            return None
        schema = None
        if text_format.type == "json_schema":
            schema = JsonSchemaFormat(name=text_format.name, schema=text_format.schema_, strict=text_format.strict)
        return ResponseFormat(type=text_format.type, json_schema=schema)


class InputTokensRequest(PromptFields):
    """The body of ``POST /v1/responses/input_tokens``."""


class CompactRequest(ConversationFields):
    """The body of ``POST /v1/responses/compact``."""

    prompt_cache_key: str | None = IGNORED
