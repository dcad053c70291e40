"""Request bodies of OpenAI's chat and text completions, with the extensions of mistral.rs that are supported.

A field that OpenAI defines and that is not supported is refused by name if its value would change the answer. Fields
that OpenAI does not define are ignored, as clients of all kinds send some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from modelyard.api.openai.conversation import ChatMessage, ContentPart
from modelyard.api.openai.tools import (
    GrammarField,
    ResponseFormat,
    ToolChoiceField,
    ToolDefinition,
    Tools,
    chosen_tools,
)
from modelyard.api.serving.bounded_items import Messages, Parts, at_most
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.config.schema import (
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
)
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, Infill, Prompt, Sampling, Text, Tokens
from modelyard.yard.requests.requests import Request

MAX_STOPS = 64
MAX_STOP_LENGTH = 1024
MAX_BREAKER_LENGTH = 40
MAX_BREAKERS = 8
MAX_TOKENS = 2**31 - 1
MAX_BIASES = 4096
MAX_CHOICES = 64
# Bounded because errors repeat the name.
MAX_NAME_LENGTH = 512


def one_or_more(value: Any) -> Any:
    """Return a single text as a list; any other value unchanged."""
    return [value] if isinstance(value, str) else value


_OneStop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
_Stops = Annotated[list[_OneStop], Field(max_length=MAX_STOPS, fail_fast=True)]
Stop = Annotated[_Stops, BeforeValidator(one_or_more, json_schema_input_type=_OneStop | _Stops)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
# Items are validated after parsing, so that the error can name the item.
TextsOrIds = Annotated[
    str | list[Any], WithJsonSchema(TypeAdapter(str | list[str] | list[int] | list[list[int]]).json_schema())
]
LogitBias = Annotated[
    dict[Annotated[int, Field(ge=0, strict=False)], Bias], Field(max_length=MAX_BIASES), at_most(MAX_BIASES)
]
Effort = Literal["none", "off", "minimal", "low", "medium", "high", "xhigh", "max"]
MaxTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


# A field that names the user, or that controls what OpenAI stores: it is accepted and ignored.
IGNORED: Any = Field(default=None, description="Accepted, without an effect on the answer.")


def refuse_unsupported(body: BaseModel, harmless: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse known fields that are not supported, unless their value has no effect.

    Args:
        body: the request.
        harmless: the unsupported fields -> their values without an effect, beside null.

    Raises:
        InvalidRequest: such a field has another value.
    """
    for name, values in harmless.items():
        value = (body.model_extra or {}).get(name)
        if value is not None and value not in values:
            raise InvalidRequest(f"'{name}' is not supported by this version. Leave it out.", name)


class StreamOptions(BaseModel):
    """OpenAI's ``stream_options``."""

    model_config = ConfigDict(strict=True)

    include_usage: bool = False
    include_obfuscation: Literal[False] = Field(default=False, description="Chunks are never padded.")


class GenerationFields(BaseModel):
    """The fields that chat and text completions share."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    seed: Seed | None = None
    logit_bias: LogitBias | None = None
    stop: Stop | None = None
    dry_multiplier: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = Field(
        default=None, description="Penalty of a token that would continue a repetition; 0: none."
    )
    dry_base: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None
    dry_allowed_length: Annotated[int, Field(ge=0, le=MAX_STOP_LENGTH)] | None = None
    dry_sequence_breakers: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_BREAKER_LENGTH)]],
            Field(max_length=MAX_BREAKERS, fail_fast=True),
        ]
        | None
    ) = None
    user: str | None = IGNORED
    ignore_eos: bool | None = None
    keep_alive: KeepAlive | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(default=None, description="Choices for each prompt.")

    @property
    def choices(self) -> int:
        """The number of choices for each prompt."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def to_request(self, prompt: Prompt, max_tokens: int | None) -> Request:
        """Return the request for the yard."""
        return Request(
            prompt=prompt,
            model=self.model,
            sampling=Sampling(
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                seed=self.seed,
                logit_bias=self.logit_bias,
                dry_multiplier=self.dry_multiplier,
                dry_base=self.dry_base,
                dry_allowed_length=self.dry_allowed_length,
                dry_sequence_breakers=None if self.dry_sequence_breakers is None else tuple(self.dry_sequence_breakers),
            ),
            max_tokens=max_tokens,
            stop=tuple(self.stop or ()),
            ignore_eos=bool(self.ignore_eos),
        )


class Prediction(BaseModel):
    """OpenAI's ``prediction``."""

    model_config = ConfigDict(strict=True)

    type: Literal["content"]
    content: str | Parts[ContentPart]

    def text(self) -> str:
        """Return the predicted text."""
        parts = [self.content] if isinstance(self.content, str) else [part.text or "" for part in self.content]
        return "".join(parts)


def _one_user_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


# The fields of mistral.rs that are not supported -> their values without an effect.
COMPLETION_HARMLESS: dict[str, tuple[Any, ...]] = {"adapter": (), "truncate_sequence": (False,)}

CHAT_HARMLESS: dict[str, tuple[Any, ...]] = {
    **COMPLETION_HARMLESS,
    "agent_permission": (),
    "audio": (),
    "code_execution_permission": (),
    "enable_shell": (False,),
    "files": ([],),
    "function_call": ("none",),
    "functions": ([],),
    "max_tool_rounds": (0,),
    "modalities": (["text"],),
    "moderation": (),
    "service_tier": ("auto", "default"),
    "session_id": (),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

MAX_TOP_LOGPROBS = 20


class ChatCompletionRequest(GenerationFields):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[
        Messages[ChatMessage],
        Field(description="The conversation. A bare string counts as one user message."),
        BeforeValidator(_one_user_message, json_schema_input_type=str | Messages[ChatMessage]),
    ]
    max_completion_tokens: MaxTokens | None = None
    tools: Tools[ToolDefinition] | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    grammar: GrammarField | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    prediction: Prediction | None = Field(
        default=None,
        description="A likely answer, such as a text before it is edited: what matches it is generated faster.",
    )
    reasoning_effort: Effort | None = Field(
        default=None,
        description="For reasoning models: passed to the chat template; `none` and `off` disable reasoning.",
    )
    enable_thinking: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="Variables for the model's chat template."
    )
    metadata: dict[str, Any] | None = IGNORED
    safety_identifier: str | None = IGNORED
    prompt_cache_key: str | None = IGNORED
    prompt_cache_retention: str | None = IGNORED
    prompt_cache_options: dict[str, Any] | None = IGNORED

    def checked(self) -> Request:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        refuse_unsupported(self, CHAT_HARMLESS)
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("'top_logprobs' needs 'logprobs': true.", "top_logprobs")
        tools, choice = chosen_tools(self.tools or [], self.tool_choice)
        chat = Chat(
            tuple(message.for_template(f"messages[{number}]") for number, message in enumerate(self.messages)),
            tools,
            choice,
            self.parallel_tool_calls is not False,
            self._options(),
        )
        request = self.to_request(chat, self.max_completion_tokens or self.max_tokens)
        return replace(
            request,
            response_format=None if self.response_format is None else self.response_format.to_constraint(),
            grammar=None if self.grammar is None else self.grammar.to_constraint(),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            prediction="" if self.prediction is None else self.prediction.text(),
        )

    def _options(self) -> dict[str, Any]:
        """Return the variables for the chat template, with those that control reasoning."""
        options = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is not None:
            options |= {"reasoning_effort": self.reasoning_effort}
            options |= {"enable_thinking": self.reasoning_effort not in ("none", "off")}
        if self.enable_thinking is not None:
            options["enable_thinking"] = self.enable_thinking
        return options


MAX_PROMPTS = 128


class CompletionRequest(GenerationFields):
    """The body of ``POST /v1/completions``."""

    prompt: TextsOrIds = Field(description="Text to continue, or token ids, or a list of either.")
    suffix: str | None = Field(default=None, description="Text after the gap that the model fills in.")
    echo: bool | None = Field(default=None, description="Whether the answer begins with the prompt.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: int | None = None
    response_format: ResponseFormat | None = None
    grammar: GrammarField | None = None

    def checked(self) -> list[Request]:
        """Return one request for the yard for each prompt.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        refuse_unsupported(self, COMPLETION_HARMLESS)
        if self.best_of not in (None, self.choices):
            raise InvalidRequest("'best_of' must be equal to 'n': every answer is returned.", "best_of")
        if self.echo and self.logprobs is not None:
            raise InvalidRequest("'echo' and 'logprobs' cannot both be given: prompts have no logprobs here.", "echo")
        if self.echo and self.suffix:
            raise InvalidRequest("'echo' and 'suffix' cannot both be given. Leave one out.", "echo")
        return [
            replace(
                self.to_request(prompt, self.max_tokens),
                response_format=None if self.response_format is None else self.response_format.to_constraint(),
                grammar=None if self.grammar is None else self.grammar.to_constraint(),
                logprobs=self.logprobs,
                echoes=bool(self.echo),
            )
            for prompt in self._prompts()
        ]

    def _prompts(self) -> list[Prompt]:
        match self.prompt:
            case str(text):
                prompts = [self._text_prompt(text)]
            case list(ids) if _are_ids(ids):
                prompts = [self._ids_prompt(ids)]
            case list(parts) if parts and len(parts) * self.choices <= MAX_PROMPTS:
                prompts = [
                    self._text_prompt(part) if isinstance(part, str) else self._ids_prompt(part) for part in parts
                ]
            case _:
                raise InvalidRequest(
                    f"'prompt' must be a text or a list of token ids, or a list of either; with 'n' choices for each, "
                    f"at most {MAX_PROMPTS} answers.",
                    "prompt",
                )
        return prompts

    def _text_prompt(self, text: str) -> Prompt:
        return Infill(text, self.suffix) if self.suffix else Text(text)

    def _ids_prompt(self, ids: Any) -> Prompt:
        if not _are_ids(ids):
            raise InvalidRequest("'prompt' must hold texts, or lists of token ids that are not empty.", "prompt")
        if self.suffix:
            raise InvalidRequest("'suffix' needs a prompt of text.", "suffix")
        return Tokens(tuple(ids))


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def choices_of(request: Request, choices: int) -> list[Request]:
    """Return the request once for each choice; a given seed is increased by one for each."""
    seed = request.sampling.seed
    if choices == 1:
        return [request]
    return [
        replace(request, sampling=replace(request.sampling, seed=None if seed is None else _seed(seed + index)))
        for index in range(choices)
    ]


def _seed(number: int) -> int:
    return number if number < 2**63 else number - 2**64
