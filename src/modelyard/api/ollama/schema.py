"""Request bodies of Ollama's endpoints.

Source: https://github.com/ollama/ollama/blob/main/docs/api.md and api/types.go.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.media.audio import is_audio
from modelyard.api.media.load import AudioReference, ImageReference, Reference
from modelyard.api.media.parts import Said, content_of, read_part
from modelyard.api.openai.embeddings import MAX_INPUTS
from modelyard.api.openai.reasoning_fields import Effort
from modelyard.api.openai.sampling import MAX_TOKENS, SamplingFields, Stop, one_or_more
from modelyard.api.openai.schema import MAX_NAME_LENGTH, MAX_TOP_LOGPROBS, refuse_unsupported
from modelyard.api.openai.tools import ToolDefinition, Tools, schema_format
from modelyard.api.serving.bounded_items import Calls, Items, Parts
from modelyard.api.serving.reasoning import reasoning_of
from modelyard.api.serving.wait_options import KeepAlive
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Chat, Infill, Prompt, Text, ends_in_an_answer
from modelyard.yard.requests.requests import Request

# Digits of base64 that identify the type of a file: 12 bytes, the length of the longest signature.
_SIGNATURE_DIGITS: Final = 16


Images = Parts[str]
_Inputs = Annotated[list[str], Field(max_length=MAX_INPUTS, fail_fast=True)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


# Options of how a model is loaded, which the configuration decides here. They do not change what a model answers.
LOADING_OPTIONS: Final = frozenset(
    {
        *("embedding_only", "f16_kv", "logits_all", "low_vram", "main_gpu", "num_batch", "num_gpu", "num_thread"),
        *("numa", "use_mlock", "use_mmap", "vocab_only"),
    }
)

# Options that Ollama's clients send with every request, and that have no effect here: the context is configured, and
# never shifts.
UNHEEDED_OPTIONS: Final = frozenset({"num_ctx", "num_keep", "penalize_newline"})

# The tail-free sampler was removed from llama.cpp.
OPTIONS_HARMLESS: Final[dict[str, tuple[Any, ...]]] = {"tfs_z": (1, 0)}

# Fields of Ollama's that are not supported -> their values without an effect.
HARMLESS: Final[dict[str, tuple[Any, ...]]] = {
    "context": ([],),
    "height": (0,),
    "steps": (0,),
    "template": ("",),
    "width": (0,),
}


class Options(SamplingFields):
    """Ollama's ``options``."""

    known_extras: ClassVar = LOADING_OPTIONS | OPTIONS_HARMLESS.keys()

    num_predict: Annotated[int, Field(ge=-2, le=MAX_TOKENS)] | None = None
    stop: Stop | None = None


class Call(_Part):
    """A function that the model called; its arguments are an object, or what else the model wrote."""

    name: str
    arguments: Any = {}


class PriorToolCall(_Part):
    """Ollama's ``tool_calls[]``."""

    id: str | None = None
    function: Call


class Message(_Part):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Parts[dict[str, Any]] | None = None
    thinking: str | None = None
    images: Images | None = None
    tool_calls: Calls[PriorToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = Field(default=None, description="Id of the call with this result.")

    def for_template(self, param: str) -> dict[str, Any]:
        """Return the turn as chat templates read it, with references to its images and its sound.

        Args:
            param: the path of the message in the body, for errors.
        """
        text, thoughts = self._content(param)
        content = _content_with_media(self.images, text, f"{param}.images")
        turn: dict[str, Any] = {"role": self.role, "content": content}
        if thinking := self.thinking or thoughts:
            turn["reasoning_content"] = thinking
        if self.tool_name:
            turn["name"] = self.tool_name
        if self.tool_call_id:
            turn["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            turn["tool_calls"] = [
                {
                    **({} if call.id is None else {"id": call.id}),
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in self.tool_calls
            ]
        return turn

    def _content(self, param: str) -> tuple[str | tuple[str | Reference, ...], str]:
        if not isinstance(self.content, list):
            return self.content or "", ""
        said: list[Said] = []
        for index, part in enumerate(self.content):
            said += read_part(part, f"{param}.content[{index}]")
        return content_of(said, "")


def _content_with_media(
    images: list[str] | None, content: str | tuple[str | Reference, ...], param: str
) -> str | tuple[str | Reference, ...]:
    """Return the content; with images or sound, files in base64, a tuple of their references and the content.

    Ollama takes sound in the same list, and detects it by the signature of the file.
    Source: https://github.com/ollama/ollama/blob/main/llm/media.go.
    """
    if not images:
        return content
    shown = (_reference(data, f"{param}[{index}]") for index, data in enumerate(images))
    return (*shown, *(content if isinstance(content, tuple) else (content,)))


def _reference(encoded: str, param: str) -> Reference:
    url = f"data:;base64,{encoded}"
    try:
        is_sound = is_audio(base64.b64decode(encoded.lstrip()[:_SIGNATURE_DIGITS]))
    except ValueError:
        # Invalid base64 counts as an image, whose decoder refuses it.
        is_sound = False
    return AudioReference(url, param) if is_sound else ImageReference(url, "auto", param)


class _GenerationFields(_Part):
    """The fields that chats and completions share."""

    known_extras: ClassVar = frozenset(HARMLESS)

    model: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    think: bool | Effort | None = None
    keep_alive: KeepAlive | None = None
    truncate: bool | None = Field(
        default=None, description="A prompt that is too long is refused: `true` is listed in `x-modelyard-ignored`."
    )
    shift: bool | None = Field(
        default=None, description="An answer ends where the context is full: `true` is listed in `x-modelyard-ignored`."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    def without_effect(self) -> Iterator[str]:
        """Yield the fields whose values ask for something that does not happen."""
        yield from (name for name in ("truncate", "shift") if getattr(self, name))

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream, which is Ollama's default."""
        return self.stream is not False

    def template_options(self) -> dict[str, Any]:
        """Return the variables for the chat template that control reasoning."""
        if isinstance(self.think, str):
            return dict(reasoning_of(effort=self.think).options)
        return dict(reasoning_of(is_on=self.think).options)

    def to_request(self, prompt: Prompt) -> Request:
        """Return the request for the yard.

        Raises:
            InvalidRequest: a field asks for something that is not supported.
        """
        options = self.options or Options()
        refuse_unsupported(self, HARMLESS)
        refuse_unsupported(options, OPTIONS_HARMLESS)
        max_tokens = options.num_predict
        return Request(
            prompt=prompt,
            model=self.model,
            sampling=options.sampling(),
            # -1 and -2: until the context is full.
            max_tokens=max_tokens if max_tokens is not None and max_tokens > 0 else None,
            stop=tuple(options.stop or ()),
            response_format=self._format(),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def _format(self) -> dict[str, Any] | None:
        if not self.format:
            return None
        if self.format == "json":
            return {"type": "json_object"}
        return schema_format(self.format, "format")


class ChatRequest(_GenerationFields):
    """The body of ``POST /api/chat``. Without messages it only loads the model, or unloads it."""

    messages: Items[Message] | None = None
    tools: Tools[ToolDefinition] | None = None

    def chat(self) -> Chat:
        """Return the conversation."""
        tools = tuple(tool.model_dump(exclude_none=True) for tool in self.tools or [])
        messages = tuple(turn.for_template(f"messages[{index}]") for index, turn in enumerate(self.messages or []))
        return Chat(messages, tools, options=self.template_options(), continues=ends_in_an_answer(messages))


class GenerateRequest(_GenerationFields):
    """The body of ``POST /api/generate``. Without a prompt it only loads the model, or unloads it."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    raw: bool = False
    images: Images | None = None

    def to_prompt(self, *, can_chat: bool) -> Prompt:
        """Return the prompt: a user's turn, or plain text if it is raw or the model has no chat template.

        Raises:
            UnsupportedOperation: there are images, but the prompt is not a turn.
        """
        if self.images and (self.suffix or self.raw or not can_chat):
            raise UnsupportedOperation(
                "'images' need a model with a chat template, and neither 'raw' nor 'suffix'.", "images"
            )
        if self.suffix:
            return Infill(self.prompt, self.suffix)
        if self.raw or not can_chat:
            return Text(self.prompt)
        system = ({"role": "system", "content": self.system},) if self.system else ()
        turn = {"role": "user", "content": _content_with_media(self.images, self.prompt, "images")}
        return Chat((*system, turn), options=self.template_options())


class EmbedRequest(_Part):
    """The body of ``POST /api/embed``. Without an input it only loads the model, or unloads it."""

    model: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    input: Annotated[_Inputs, BeforeValidator(one_or_more, json_schema_input_type=str | _Inputs)] = []
    truncate: bool | None = Field(
        default=None, description="False: an input that is too long is refused instead of cut."
    )
    dimensions: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Must be the model's own number of dimensions: vectors are not shortened."
    )
    options: Options | None = None
    keep_alive: KeepAlive | None = None

    def without_effect(self) -> Iterator[str]:
        """Yield the options of generation that are set: vectors do not depend on them."""
        if self.options is not None:
            sent = self.options.model_fields_set & set(Options.model_fields)
            yield from (f"options.{name}" for name in sorted(sent) if getattr(self.options, name) is not None)

    def texts(self) -> tuple[Text, ...]:
        """Return the texts to embed; () if there are none.

        Raises:
            InvalidRequest: one of several texts is empty.
        """
        if self.input == [""]:
            return ()
        for index, text in enumerate(self.input):
            if not text:
                raise InvalidRequest(
                    f"'input[{index}]' is an empty text, which has no embedding. Leave it out.", "input"
                )
        return tuple(map(Text, self.input))


class EmbeddingsRequest(_Part):
    """The body of ``POST /api/embeddings``, which is older. Without a prompt it only loads the model, or unloads it."""

    model: str | None = Field(default=None, max_length=MAX_NAME_LENGTH)
    prompt: str = ""
    options: Options | None = None
    keep_alive: KeepAlive | None = None


class NamedModel(_Part):
    """The body of ``POST /api/show`` and ``DELETE /api/delete``."""

    model: str = Field(default="", max_length=MAX_NAME_LENGTH)
    name: str = Field(default="", max_length=MAX_NAME_LENGTH)


class PullRequest(NamedModel):
    """The body of ``POST /api/pull``."""

    known_extras: ClassVar[frozenset[str]] = frozenset({"insecure"})

    stream: bool | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream, as Ollama's is by default."""
        return self.stream is not False


class CopyRequest(_Part):
    """The body of ``POST /api/copy``."""

    source: str = Field(min_length=1, max_length=MAX_NAME_LENGTH, description="Id or alias of the model.")
    destination: str = Field(min_length=1, max_length=MAX_NAME_LENGTH, description="The name of the copy.")


class CreateRequest(PullRequest):
    """The body of ``POST /api/create``: a base or files, and what is changed; or a Modelfile."""

    model: str = Field(default="", max_length=MAX_NAME_LENGTH, description="The name of the new model.")
    name: str = Field(default="", max_length=MAX_NAME_LENGTH, description="The same, by its older name.")
    from_: str = Field(
        default="",
        alias="from",
        max_length=MAX_NAME_LENGTH,
        description="The model to begin with: one of this server, or of the Hugging Face Hub.",
    )
    modelfile: str = Field(default="", description="A Modelfile, in place of the other fields.")
    files: dict[str, str] | None = Field(
        default=None,
        description="In place of `from`: the name of one GGUF file, with the digest that it was sent under.",
    )
    adapters: dict[str, str] | None = Field(
        default=None,
        description="LoRA adapters that the model always has: names of GGUF files, or `adapter_config.json` and "
        "`adapter_model.safetensors` as PEFT saves them, with the digests that they were sent under.",
    )
    template: str = Field(default="", description="A chat template in Jinja; Ollama's own language is refused.")
    license: str | list[str] | None = Field(default=None, description="Its license, which is not kept.")
    system: str = Field(default="", description="A system message for conversations that have none.")
    parameters: dict[str, Any] | None = Field(
        default=None, description="Defaults of sampling, and `num_ctx`, by the names of Ollama's options."
    )
    messages: list[Any] | None = Field(default=None, description="Must be empty: `system` comes before conversations.")
    quantize: str = Field(default="", description="Must be empty: `isq` in a configuration quantises.")
