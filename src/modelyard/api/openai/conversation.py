"""The messages of a conversation in OpenAI's requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.media.load import AudioReference, ImageReference, Reference
from modelyard.api.media.parts import READ_FIELDS, Said, content_of, read_part
from modelyard.api.serving.bounded_items import Calls, Parts
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Detail, ends_in_an_answer


class ImageUrl(BaseModel):
    """OpenAI's ``image_url``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    url: Annotated[str, Field(min_length=1)]
    detail: Detail | None = None


class AudioUrl(BaseModel):
    """vLLM's ``audio_url``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    url: Annotated[str, Field(min_length=1)]


class InputAudio(BaseModel):
    """OpenAI's ``input_audio``: a file in base64."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    data: Annotated[str, Field(min_length=1)]
    format: Literal["wav", "mp3", "flac", "ogg"] | None = None

    def reference(self, param: str) -> AudioReference:
        """Return a reference to the clip. ``data`` may also be a data URL, which some clients send."""
        is_url = self.data[:5].lower() == "data:"
        return AudioReference(self.data if is_url else f"data:;base64,{self.data}", f"{param}.data")


def _url_object(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class ContentPart(BaseModel):
    """One part of a message's content."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    known_extras: ClassVar = READ_FIELDS

    type: str
    text: str | None = None
    image_url: Annotated[
        ImageUrl | None, BeforeValidator(_url_object, json_schema_input_type=str | ImageUrl | None)
    ] = None

    input_audio: InputAudio | None = None
    audio_url: Annotated[
        AudioUrl | None, BeforeValidator(_url_object, json_schema_input_type=str | AudioUrl | None)
    ] = None

    def read(self, param: str) -> list[Said]:
        """Return what the part says; nothing for one that says nothing.

        Args:
            param: the path of the part in the body, for errors.

        Raises:
            InvalidRequest: the part lacks the field of its type.
            UnsupportedOperation: parts of that type are not supported.
        """
        match self.type:
            case "image_url" | "input_image" if self.image_url is not None:
                return [ImageReference(self.image_url.url, self.image_url.detail or "auto", f"{param}.image_url")]
            case "image_url":
                raise InvalidRequest("A part of type 'image_url' must have 'image_url'.", f"{param}.image_url")
            case "input_audio":
                if self.input_audio is None:
                    raise InvalidRequest(
                        "A part of type 'input_audio' must have 'input_audio'.", f"{param}.input_audio"
                    )
                return [self.input_audio.reference(f"{param}.input_audio")]
            case "audio_url":
                if self.audio_url is None:
                    raise InvalidRequest("A part of type 'audio_url' must have 'audio_url'.", f"{param}.audio_url")
                return [AudioReference(self.audio_url.url, f"{param}.audio_url")]
        return read_part({**(self.model_extra or {}), "type": self.type, "text": self.text}, param)


class MadeFunctionCall(BaseModel):
    """The function that was called; arguments is the text of a JSON object, or what else the model wrote."""

    model_config = ConfigDict(strict=True, extra="allow")
    known_extras: ClassVar = PASSED_ON

    name: str
    arguments: Any = "{}"


class MadeCustomCall(BaseModel):
    """The custom tool that was called, with a text."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str
    input: str = ""


class PriorToolCall(BaseModel):
    """A call that the model made in an earlier turn."""

    model_config = ConfigDict(strict=True, extra="allow")
    known_extras: ClassVar = PASSED_ON

    id: str | None = None
    type: Literal["function", "custom"] | None = "function"
    function: MadeFunctionCall | None = None
    custom: MadeCustomCall | None = Field(default=None, description="The custom tool, in place of a function.")

    def for_template(self, param: str) -> dict[str, Any]:
        """Return the call as chat templates read it: a custom tool is a function of one text.

        Raises:
            InvalidRequest: it has no function.
        """
        if self.function is not None:
            function = self.function.model_dump()
        elif self.custom is not None:
            function = {"name": self.custom.name, "arguments": json.dumps({"input": self.custom.input})}
        else:
            raise InvalidRequest(f"'{param}': A call must have a function, with a name and arguments.", param)
        named = {} if self.id is None else {"id": self.id}
        return {**(self.model_extra or {}), **named, "type": "function", "function": function}


def _text_part(value: Any) -> Any:
    return {"type": "text", "text": value} if isinstance(value, str) else value


_Part = Annotated[ContentPart, BeforeValidator(_text_part, json_schema_input_type=str | ContentPart)]


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    known_extras: ClassVar = PASSED_ON

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Parts[_Part] | None = None
    tool_calls: Calls[PriorToolCall] | None = None
    function_call: MadeFunctionCall | None = Field(default=None, description="OpenAI's older form of one tool call.")
    refusal: str | None = Field(default=None, description="Counts as the content of a message that has no other.")

    def for_template(self, param: str) -> dict[str, Any]:
        """Return the message as chat templates read it: older roles and calls in the newer form, other fields stay.

        The content is a text; with images or sound, a tuple of texts and references. Parts that are reasoning become
        ``reasoning_content``.

        Args:
            param: the path of the message in the body, for errors.

        Raises:
            InvalidRequest: a part or a call lacks a field.
            UnsupportedOperation: a part cannot be read.
        """
        content, thoughts = self._content(param)
        message = {**(self.model_extra or {}), "role": self._role(), "content": content or self.refusal or ""}
        calls = self.tool_calls or []
        if calls:
            message["tool_calls"] = [
                call.for_template(f"{param}.tool_calls[{index}]") for index, call in enumerate(calls)
            ]
        elif self.function_call is not None:
            message["tool_calls"] = [{"type": "function", "function": self.function_call.model_dump()}]
        if thoughts and not message.get("reasoning_content"):
            message["reasoning_content"] = thoughts
        return message

    def _role(self) -> str:
        return {"developer": "system", "function": "tool"}.get(self.role, self.role)

    def _content(self, param: str) -> tuple[str | tuple[str | Reference, ...], str]:
        if self.content is None or isinstance(self.content, str):
            return self.content or "", ""
        said: list[Said] = []
        for number, part in enumerate(self.content):
            said += part.read(f"{param}.content[{number}]")
        return content_of(said, "")


ContinueFinalMessage = Annotated[
    bool | None,
    Field(
        description="Whether the answer goes on from the end of the last message, and holds only what follows. "
        "Default: if that is the assistant's."
    ),
]
AddGenerationPrompt = Annotated[
    bool | None,
    Field(
        description="True: the answer is a turn of its own, also behind a message of the assistant. False: no turn is "
        "opened for it."
    ),
]


def chosen_continuation(
    messages: Sequence[Mapping[str, Any]], continue_final_message: bool | None, add_generation_prompt: bool | None
) -> bool:
    """Return whether the answer goes on from the last message.

    Without a choice it does so from an assistant's message, as in llama.cpp's server. The two fields are vLLM's.

    Raises:
        InvalidRequest: both fields are true, or the last message has nothing to go on from.
    """
    if continue_final_message and add_generation_prompt:
        raise InvalidRequest(
            "'continue_final_message' and 'add_generation_prompt' cannot both be true: the answer either goes on from "
            "the last message or is a new one. Leave one out.",
            "continue_final_message",
        )
    if continue_final_message is None:
        return not add_generation_prompt and ends_in_an_answer(messages)
    if continue_final_message and (messages[-1].get("tool_calls") or not _has_text(messages[-1])):
        raise InvalidRequest(
            "'continue_final_message' needs text in the last message, and no calls: there is nothing to go on from.",
            "continue_final_message",
        )
    return continue_final_message


def _has_text(message: Mapping[str, Any]) -> bool:
    content = message["content"]
    return (bool(content) and isinstance(content, str)) or ends_in_an_answer([message])
