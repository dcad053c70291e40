"""Request bodies of Anthropic's endpoints.

Source: https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from modelyard.api.anthropic.blocks import Blocks, Message, Part, content_of_blocks, turns_of
from modelyard.api.anthropic.context_edits import AppliedEdit, ContextManagement, edited
from modelyard.api.anthropic.mcp_servers import McpServer, named_servers
from modelyard.api.anthropic.tools import Choice, Tool, left_out_of, offered_tools, tool_sets_of
from modelyard.api.errors.anthropic import ThreadsNotHeld
from modelyard.api.openai.sampling import MAX_STOP_LENGTH, MAX_STOPS, MAX_TOKENS
from modelyard.api.openai.schema import IGNORED, MAX_NAME_LENGTH, refuse_unsupported
from modelyard.api.openai.tools import Tools, schema_format
from modelyard.api.serving.bounded_items import Labels, Messages
from modelyard.api.serving.reasoning import ReasoningRequest, reasoning_of
from modelyard.api.serving.request_servers import NamedServer, ServedTools, with_definitions
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.config.model import TopK, TopP
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, Sampling, ends_in_an_answer
from modelyard.yard.requests.requests import Request, TokenizeRequest

_NONE_SERVED: Final = ServedTools()


class Thinking(Part):
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


class Format(Part):
    """A schema that the answer must follow."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Part):
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


class _PromptFields(Part):
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
    mcp_servers: Labels[McpServer] | None = Field(
        default=None,
        description="MCP servers to connect to for this request, whose tools this server runs. Their hosts must be "
        "listed in `[mcp] allow_request_servers`.",
    )
    speed: str | None = ELSEWHERE
    service_tier: str | None = IGNORED
    user_profile_id: str | None = IGNORED
    workspace_id: str | None = IGNORED

    def without_effect(self) -> Iterator[str]:
        """Yield the parts that ask for something that does not happen."""
        yield from (name for name in ("container", "fallbacks") if getattr(self, name))
        if self.inference_geo not in (None, "global", "not_available"):
            yield "inference_geo"
        if self.speed not in (None, "standard"):
            yield "speed"
        yield from left_out_of(self.tools or [], self.tool_choice)

    @property
    def may_call_tools(self) -> bool:
        """Whether the request lets its model call tools."""
        return self.tool_choice is None or self.tool_choice.type != "none"

    def named_servers(self) -> list[NamedServer]:
        """Return the MCP servers that the request names.

        Raises:
            InvalidRequest: two have the same name, or an mcp_toolset does not name its server.
        """
        return named_servers(self.mcp_servers or [], tool_sets_of(self.tools or []))

    def chat(self, served: ServedTools = _NONE_SERVED) -> Chat:
        """Return the conversation in the form that chat templates read, with the client's tools.

        Args:
            served: tools that this server runs.

        Raises:
            InvalidRequest: a block, or a tool, is not supported.
        """
        turns = tuple(self._edited(served)[0])
        offered = offered_tools(self.tools or [], self.tool_choice, served.tools)
        has_one_call = self.tool_choice is not None and self.tool_choice.disable_parallel_tool_use
        return Chat(
            turns,
            offered.functions,
            offered.choice,
            not has_one_call,
            self.reasoning_request().options,
            continues=ends_in_an_answer(turns),
        )

    def _edited(self, served: ServedTools) -> tuple[list[dict[str, Any]], list[AppliedEdit]]:
        """Return the turns of the conversation as they become the prompt, and the edits that have shortened it."""
        names = served.names
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": content_of_blocks(self.system, "system")})
        for index, message in enumerate(self.messages):
            messages += turns_of(message, f"messages[{index}].content", names)
        if messages and messages[-1]["role"] == "assistant" and isinstance(text := messages[-1]["content"], str):
            # Anthropic refuses white space at the end, which models write as a part of the next word.
            messages[-1]["content"] = text.rstrip()
        return edited(messages, () if self.context_management is None else self.context_management.edits)

    def applied_edits(self, served: ServedTools = _NONE_SERVED) -> list[AppliedEdit] | None:
        """Return the edits that have shortened the conversation; None if the request has no ``context_management``.

        Raises:
            InvalidRequest: a block, or a tool, is not supported.
        """
        return None if self.context_management is None else self._edited(served)[1]

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

    def checked(self, served: ServedTools = _NONE_SERVED) -> Request:
        """Return the request for the yard, with the client's tools; ``served`` are those that this server runs.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        if (self.model_extra or {}).get("thread") is not None:
            raise ThreadsNotHeld
        self.refuse_unsupported()
        return Request(
            prompt=self.chat(served),
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

    def checked(self, served: ServedTools = _NONE_SERVED) -> TokenizeRequest:
        """Return the request for the yard, with all tools; ``served`` are those that this server runs.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        self.refuse_unsupported()
        return TokenizeRequest(with_definitions(self.chat(served), served.tools), self.model)

    def unedited(self) -> CountRequest | None:
        """Return the request without edits of the conversation; None if there are none."""
        has_edits = self.context_management is not None and self.context_management.edits
        return self.model_copy(update={"context_management": None}) if has_edits else None
