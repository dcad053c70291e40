"""What OpenAI's clients send, and the reference's extensions, as far as this version honours them.

A field that OpenAI defines and this version does not honour is refused by name where its value would change the
answer; fields that nobody defines are ignored, as clients of all kinds send some.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.images import ImageReference
from modelyard.api.urgency import KeepAlive
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
from modelyard.engine.messages import Chat, Prompt, Sampling, Text, Tokens
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.yard.yard import Request

MOST_STOPS = 64
LONGEST_STOP = 1024
MOST_TOKENS = 2**31 - 1
MOST_BIASES = 4096
# An error repeats the name, so it must not be a megabyte.
LONGEST_NAME = 512


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]],
    Field(max_length=MOST_STOPS),
    BeforeValidator(_one_or_more),
]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
LogitBias = Annotated[dict[Annotated[int, Field(ge=0, strict=False)], Bias], Field(max_length=MOST_BIASES)]
MaxTokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


class StreamOptions(BaseModel):
    """OpenAI's ``stream_options``."""

    model_config = ConfigDict(strict=True)

    include_usage: bool = False


class GenerationFields(BaseModel):
    """What chats and completions have in common."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    model: str | None = Field(
        default=None, max_length=LONGEST_NAME, description="Id or alias; omitted or 'default': the default model."
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
    ignore_eos: bool | None = None
    keep_alive: KeepAlive | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def refuse_unsupported(self, harmless: dict[str, tuple[Any, ...]]) -> None:
        """Refuse fields of OpenAI's that are not honoured, unless they ask for nothing.

        Args:
            harmless: such fields -> values that change no answer (beside null).

        Raises:
            InvalidRequest: one of them asks for something.
        """
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("'stream_options' needs 'stream': true.", "stream_options")
        for name, values in harmless.items():
            value = (self.model_extra or {}).get(name)
            if value is not None and value not in values:
                raise InvalidRequest(f"'{name}' is not supported by this version. Leave it out.", name)

    def to_request(self, prompt: Prompt, max_tokens: int | None) -> Request:
        """What the yard is asked."""
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
            ),
            max_tokens=max_tokens,
            stop=tuple(self.stop or ()),
            ignore_eos=bool(self.ignore_eos),
        )


class ImageUrl(BaseModel):
    """OpenAI's ``image_url``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto", "low", "high"] = "auto"


def _url_alone(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class ContentPart(BaseModel):
    """One part of a message's content."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    type: str
    text: str | None = None
    image_url: Annotated[ImageUrl | None, BeforeValidator(_url_alone)] = None

    def read(self, param: str) -> str | ImageReference:
        """The text, or which image.

        Args:
            param: the field that the part is.

        Raises:
            InvalidRequest: it lacks what its type says.
            UnsupportedOperation: models are shown nothing of that type.
        """
        match self.type:
            case "text":
                if self.text is None:
                    raise InvalidRequest("A part of type 'text' must have 'text'.", f"{param}.text")
                return self.text
            case "image_url":
                if self.image_url is None:
                    raise InvalidRequest("A part of type 'image_url' must have 'image_url'.", f"{param}.image_url")
                return ImageReference(self.image_url.url, self.image_url.detail, f"{param}.image_url")
        raise UnsupportedOperation(
            f"Content of type '{self.type}' is not supported by this version, only 'text' and 'image_url' are.", param
        )


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None

    def for_template(self, param: str) -> dict[str, Any]:
        """What chat templates read: developer as system, the other fields as they came.

        Content is text; where there are images, it is text and references to them.

        Args:
            param: the field that the message is.
        """
        return {
            **(self.model_extra or {}),
            "role": "system" if self.role == "developer" else self.role,
            "content": self._content(param),
        }

    def _content(self, param: str) -> str | tuple[str | ImageReference, ...]:
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        parts = tuple(part.read(f"{param}.content[{number}]") for number, part in enumerate(self.content))
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else parts


def _one_user_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


_CHAT_HARMLESS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "grammar": (),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}


class ChatCompletionRequest(GenerationFields):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[
        list[ChatMessage],
        Field(min_length=1, description="The conversation. A bare string counts as one user message."),
        BeforeValidator(_one_user_message),
    ]
    max_completion_tokens: MaxTokens | None = None

    def checked(self) -> Request:
        """What the yard is asked.

        Raises:
            InvalidRequest: a field asks for what is not supported.
        """
        self.refuse_unsupported(_CHAT_HARMLESS)
        messages = tuple(message.for_template(f"messages[{number}]") for number, message in enumerate(self.messages))
        return self.to_request(Chat(messages), self.max_completion_tokens or self.max_tokens)


_COMPLETION_HARMLESS: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "grammar": (),
    "logprobs": (),
    "n": (1,),
    "suffix": ("",),
}


class CompletionRequest(GenerationFields):
    """The body of ``POST /v1/completions``."""

    prompt: str | list[Any] = Field(description="Text to continue, or token ids.")

    def checked(self) -> Request:
        """What the yard is asked.

        Raises:
            InvalidRequest: a field asks for what is not supported.
        """
        self.refuse_unsupported(_COMPLETION_HARMLESS)
        return self.to_request(self._prompt(), self.max_tokens)

    def _prompt(self) -> Prompt:
        match self.prompt:
            case str(text) | [str(text)]:
                return Text(text)
            case list(ids) if ids and all(type(token) is int for token in ids):
                return Tokens(tuple(ids))
            case [[*ids]] if ids and all(type(token) is int for token in ids):
                return Tokens(tuple(ids))
        raise InvalidRequest("'prompt' must be one text or one list of token ids.", "prompt")
