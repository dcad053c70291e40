"""Request bodies of OpenAI's chat and text completions, with the extensions of other servers that are supported.

A known field that is not supported is refused by name if its value would change the answer. Unknown fields are taken,
as clients of all kinds send some, and named in the answer's header; see ``serving.ignored_fields``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from modelyard.agent.offer import Permission
from modelyard.agent.request import MAX_TOOL_ROUNDS
from modelyard.api.openai.answer_format import AnswerFormatFields
from modelyard.api.openai.conversation import (
    AddGenerationPrompt,
    ChatMessage,
    ContentPart,
    ContinueFinalMessage,
    chosen_continuation,
)
from modelyard.api.openai.lora_field import MAX_ADAPTERS, LoraScale
from modelyard.api.openai.reasoning_fields import ReasoningFields
from modelyard.api.openai.sampling import MAX_STOP_LENGTH, MAX_STOPS, MAX_TOKENS, SamplingFields, Stop, TokenLimit
from modelyard.api.openai.tools import (
    ToolChoiceField,
    ToolDefinition,
    Tools,
    chosen_tools,
)
from modelyard.api.serving.bounded_items import Messages, Parts
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat, Infill, Prompt, Text, Tokens
from modelyard.yard.requests.requests import Request

MAX_CHOICES = 64
MAX_TOP_LOGPROBS = 20
MAX_ALLOWED = 1 << 16
# Bounded because errors repeat the name.
MAX_NAME_LENGTH = 512


# Items are validated after parsing, so that the error can name the item.
TextsOrIds = Annotated[
    str | list[Any], WithJsonSchema(TypeAdapter(str | list[str] | list[int] | list[list[int]]).json_schema())
]
MaxTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]

_BadWord = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


# A field that names the user, or that controls what others store, cache or charge: no value changes the answer.
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

    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool = False
    include_obfuscation: Literal[False] = Field(default=False, description="Chunks are never padded.")


class GenerationFields(SamplingFields):
    """The fields that chat and text completions share."""

    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    n_predict: TokenLimit | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    stop: Stop | None = None
    stop_token_ids: Annotated[list[int], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None
    timings_per_token: bool | None = Field(
        default=None, description="Whether each chunk of a stream has llama.cpp's `timings`; the last one always has."
    )
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(default=None, description="Choices for each prompt.")
    user: str | None = IGNORED
    keep_alive: KeepAlive | None = None
    allowed_token_ids: Annotated[list[int], Field(min_length=1, max_length=MAX_ALLOWED, fail_fast=True)] | None = Field(
        default=None, description="The only token ids that the answer may have."
    )
    bad_words: Annotated[list[_BadWord], Field(max_length=MAX_STOPS, fail_fast=True)] | None = Field(
        default=None, description="Texts whose tokens the answer must not have one behind the other."
    )
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=MAX_TOKENS)] | None = Field(
        default=None,
        description="A longer prompt is cut to its last tokens, so many of them; -1: as many as leave room for the "
        "answer.",
    )
    t_max_predict_ms: Annotated[int, Field(ge=-1, le=MAX_TOKENS)] | None = Field(
        default=None,
        description="Milliseconds from its first token after which an answer ends that has more than one line; 0 and "
        "-1: no limit.",
    )
    return_progress: bool | None = Field(
        default=None, description="Whether a stream has `prompt_progress` while the prompt is computed."
    )
    lora: Annotated[list[LoraScale], Field(max_length=MAX_ADAPTERS, fail_fast=True)] | None = Field(
        default=None,
        description="The adapters of the model that the answer is computed with, in place of those that `model` names.",
    )

    def without_effect(self) -> Iterator[str]:
        """Yield the fields whose values ask for something that does not happen."""
        # Some clients turn their stream off, and send its options all the same.
        if self.stream_options is not None and self.stream is False:
            yield "stream_options"
        if self.return_progress and not self.stream:
            yield "return_progress"

    @property
    def choices(self) -> int:
        """The number of choices for each prompt."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def limit(self) -> int | None:
        """The limit of tokens in the answer; None: as many as the context holds."""
        limits = (self.max_completion_tokens, self.max_tokens, self.n_predict)
        limit = next((limit for limit in limits if limit is not None), None)
        return None if limit is None or limit < 0 else limit

    def to_request(self, prompt: Prompt) -> Request:
        """Return the request for the yard.

        Raises:
            InvalidRequest: two fields contradict each other.
        """
        if self.stream_options is not None and self.stream is None:
            raise InvalidRequest(
                "'stream_options' is only allowed with 'stream': true. Leave it out.", "stream_options"
            )
        limit, min_tokens, limit_ms = self.limit, self.min_tokens or 0, self.t_max_predict_ms or 0
        if limit is not None and min_tokens > limit:
            raise InvalidRequest(
                f"'min_tokens' is {min_tokens}, but the answer may have {limit} tokens. Lower it.", "min_tokens"
            )
        return Request(
            prompt=prompt,
            model=self.model,
            sampling=self.sampling(),
            max_tokens=limit,
            min_tokens=min_tokens,
            stop=tuple(self.stop or ()),
            stop_tokens=tuple(self.stop_token_ids or ()),
            includes_stop=bool(self.include_stop_str_in_output),
            shows_special=self.skip_special_tokens is False,
            ignore_eos=bool(self.ignore_eos),
            allowed_tokens=None if self.allowed_token_ids is None else tuple(self.allowed_token_ids),
            bad_words=tuple(self.bad_words or ()),
            max_prompt_tokens=self._max_prompt_tokens,
            max_predict_s=limit_ms / 1000 if limit_ms > 0 else None,
            reports_progress=bool(self.return_progress and self.stream),
            lora=None if self.lora is None else tuple((each.id, each.scale) for each in self.lora),
        )

    @property
    def _max_prompt_tokens(self) -> int | None:
        limit = self.truncate_prompt_tokens
        if limit == 0:
            raise InvalidRequest(
                "'truncate_prompt_tokens' is 0, and a prompt has at least one token. Raise it.",
                "truncate_prompt_tokens",
            )
        return 0 if limit == -1 else limit


class ScoreFields(BaseModel):
    """The fields of vLLM for log-probabilities."""

    stream: bool | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = Field(
        default=None,
        description="For how many of the most likely tokens the answer has the log-probabilities at each place of the "
        "prompt, beside its own token. Not with `stream`.",
    )
    return_tokens_as_token_ids: bool | None = Field(
        default=None, description="Whether log-probabilities name tokens by id, such as `token_id:42`."
    )

    def check_scores(self) -> None:
        """Refuse scores that a stream has no place for.

        Raises:
            InvalidRequest: the log-probabilities of the prompt are asked for with a stream.
        """
        if self.prompt_logprobs is not None and self.stream:
            raise InvalidRequest(
                "'prompt_logprobs' is not available with 'stream': true. Leave one of them out.", "prompt_logprobs"
            )


class Prediction(BaseModel):
    """OpenAI's ``prediction``."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["content"]
    content: str | Parts[ContentPart]

    def text(self) -> str:
        """Return the predicted text."""
        parts = [self.content] if isinstance(self.content, str) else [part.text or "" for part in self.content]
        return "".join(parts)


def _one_user_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


# Fields of OpenAI, mistral.rs, vLLM and llama.cpp that are not supported -> their values without an effect.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "adapter": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "truncate_sequence": (False,),
    "use_beam_search": (False,),
}

COMPLETION_HARMLESS: dict[str, tuple[Any, ...]] = {**_HARMLESS, "add_special_tokens": (True,)}

CHAT_HARMLESS: dict[str, tuple[Any, ...]] = {
    **_HARMLESS,
    "add_special_tokens": (False,),
    "audio": (),
    "code_execution_permission": (),
    "echo": (False,),
    "enable_shell": (False,),
    "files": ([],),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "session_id": (),
}

# Fields of llama.cpp and vLLM that control where and how fast an answer is computed, and not which one. The server
# decides these itself: a request goes to the slot with its prefix, prompts are cached, and no context shifts.
WITHOUT_EFFECT: Final = frozenset(
    {
        *("cache_prompt", "id_slot", "n_cache_reuse", "n_discard", "n_keep", "request_id"),
        "spaces_between_special_tokens",
    }
)


class ChatCompletionRequest(GenerationFields, ScoreFields, AnswerFormatFields, ReasoningFields):
    """The body of ``POST /v1/chat/completions``."""

    known_extras: ClassVar = WITHOUT_EFFECT.union(CHAT_HARMLESS)

    messages: Annotated[
        Messages[ChatMessage],
        Field(description="The conversation. A bare string counts as one user message."),
        BeforeValidator(_one_user_message, json_schema_input_type=str | Messages[ChatMessage]),
    ]
    tools: Tools[ToolDefinition] | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    prediction: Prediction | None = Field(
        default=None,
        description="A likely answer, such as a text before it is edited: what matches it is generated faster.",
    )
    continue_final_message: ContinueFinalMessage = None
    add_generation_prompt: AddGenerationPrompt = None
    metadata: dict[str, Any] | None = IGNORED
    safety_identifier: str | None = IGNORED
    prompt_cache_key: str | None = IGNORED
    prompt_cache_retention: str | None = IGNORED
    prompt_cache_options: dict[str, Any] | None = IGNORED
    service_tier: str | None = IGNORED
    store: bool | None = Field(
        default=None, description="No completion is stored: `true` is listed in `x-modelyard-ignored`."
    )
    verbosity: Literal["low", "medium", "high"] | None = Field(
        default=None, description="Has no effect: `low` and `high` are listed in `x-modelyard-ignored`."
    )
    max_tool_rounds: Annotated[int, Field(ge=0, le=MAX_TOOL_ROUNDS)] | None = Field(
        default=None,
        description="In how many rounds the model may call tools of the server; it lowers the configured bound. 0: it "
        "gets no tools of the server.",
    )
    agent_permission: Permission | None = Field(
        default=None,
        description="`ask`: each call of a tool of the server waits for its approval; needs `stream`. `deny`: the "
        "model gets no tools of the server. `auto`: as configured, which no value relaxes.",
    )
    web_search_options: dict[str, Any] | None = Field(
        default=None, description="The server searches nothing: it is listed in `x-modelyard-ignored`."
    )

    def without_effect(self) -> Iterator[str]:
        """Yield the fields whose values ask for something that does not happen."""
        yield from super().without_effect()
        if self.store:
            yield "store"
        if self.verbosity not in (None, "medium"):
            yield "verbosity"
        if self.web_search_options is not None:
            yield "web_search_options"

    def checked(self, server_tools: Collection[str] = ()) -> Request:
        """Return the request for the yard; its prompt has the client's tools.

        Args:
            server_tools: names of the server's tools, of which ``tool_choice`` may demand one, too.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        refuse_unsupported(self, CHAT_HARMLESS)
        self.check_scores()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("'top_logprobs' needs 'logprobs': true.", "top_logprobs")
        tools, choice = chosen_tools(self.tools or [], self.tool_choice, server_tools)
        reasoning = self.reasoning_request()
        messages = tuple(message.for_template(f"messages[{number}]") for number, message in enumerate(self.messages))
        continues = chosen_continuation(messages, self.continue_final_message, self.add_generation_prompt)
        chat = Chat(
            messages,
            tools,
            choice,
            self.parallel_tool_calls is not False,
            reasoning.options,
            continues=continues,
            opens_turn=self.add_generation_prompt is not False,
        )
        request = self.to_request(chat)
        return replace(
            request,
            **self.answer_format(),
            reasoning_budget=reasoning.budget,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            prompt_logprobs=self.prompt_logprobs,
            prediction="" if self.prediction is None else self.prediction.text(),
        )


MAX_PROMPTS = 128


class CompletionRequest(GenerationFields, ScoreFields, AnswerFormatFields):
    """The body of ``POST /v1/completions``."""

    known_extras: ClassVar = WITHOUT_EFFECT.union(COMPLETION_HARMLESS)

    prompt: TextsOrIds = Field(description="Text to continue, or token ids, or a list of either.")
    suffix: str | None = Field(default=None, description="Text after the gap that the model fills in.")
    echo: bool | None = Field(default=None, description="Whether the answer begins with the prompt.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="How many answers are generated for each prompt, of which the `n` are returned whose tokens have "
        "the highest mean log-probability.",
    )

    @property
    def generated(self) -> int:
        """The number of answers that are generated for each prompt."""
        return self.choices if self.best_of is None else self.best_of

    def checked(self) -> list[Request]:
        """Return one request for the yard for each prompt.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        refuse_unsupported(self, COMPLETION_HARMLESS)
        self.check_scores()
        if self.generated < self.choices:
            raise InvalidRequest(f"'best_of' is {self.best_of}, and 'n' is {self.n}. Raise it to 'n'.", "best_of")
        is_ranked = self.generated > self.choices
        if is_ranked and self.stream:
            raise InvalidRequest("With 'stream', 'best_of' must be equal to 'n'. Leave one of them out.", "best_of")
        if self.echo and self.suffix:
            raise InvalidRequest("'echo' and 'suffix' cannot both be given. Leave one out.", "echo")
        return [
            replace(
                self.to_request(prompt),
                **self.answer_format(),
                logprobs=0 if is_ranked and self.logprobs is None else self.logprobs,
                echoes=bool(self.echo),
                prompt_logprobs=self.prompt_logprobs,
            )
            for prompt in self._prompts()
        ]

    def _prompts(self) -> list[Prompt]:
        match self.prompt:
            case _ if self.generated > MAX_PROMPTS:
                raise InvalidRequest(
                    f"'best_of' is {self.best_of}, and at most {MAX_PROMPTS} answers are generated. Lower it.",
                    "best_of",
                )
            case str(text):
                prompts = [self._text_prompt(text)]
            case list(ids) if _are_ids(ids):
                prompts = [self._ids_prompt(ids)]
            case list(parts) if parts and len(parts) * self.generated <= MAX_PROMPTS:
                prompts = [
                    self._text_prompt(part) if isinstance(part, str) else self._ids_prompt(part) for part in parts
                ]
            case _:
                raise InvalidRequest(
                    f"'prompt' must be a text or a list of token ids, or a list of either; with 'n' or 'best_of' "
                    f"answers to each, at most {MAX_PROMPTS} answers.",
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
