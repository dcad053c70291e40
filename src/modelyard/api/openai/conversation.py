"""The messages of a conversation in OpenAI's requests."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.media.load import AudioReference, ImageReference, Reference
from modelyard.api.serving.bounded_items import Calls, Parts
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Detail


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
    # Every prompt is cached.
    known_extras: ClassVar = frozenset({"cache_control"})

    type: str
    text: str | None = None
    image_url: Annotated[
        ImageUrl | None, BeforeValidator(_url_object, json_schema_input_type=str | ImageUrl | None)
    ] = None

    input_audio: InputAudio | None = None
    audio_url: Annotated[
        AudioUrl | None, BeforeValidator(_url_object, json_schema_input_type=str | AudioUrl | None)
    ] = None

    def read(self, param: str) -> str | Reference:
        """Return the text of the part, or a reference to its image or sound.

        Args:
            param: the path of the part in the body, for errors.

        Raises:
            InvalidRequest: the part lacks the field of its type.
            UnsupportedOperation: parts of that type are not supported.
        """
        match self.type:
            case "text":
                if self.text is None:
                    raise InvalidRequest("A part of type 'text' must have 'text'.", f"{param}.text")
                return self.text
            case "image_url":
                if self.image_url is None:
                    raise InvalidRequest("A part of type 'image_url' must have 'image_url'.", f"{param}.image_url")
                return ImageReference(self.image_url.url, self.image_url.detail or "auto", f"{param}.image_url")
            case "input_audio":
                if self.input_audio is None:
                    raise InvalidRequest(
                        "A part of type 'input_audio' must have 'input_audio'.", f"{param}.input_audio"
                    )
                return self.input_audio.reference(f"{param}.input_audio")
            case "audio_url":
                if self.audio_url is None:
                    raise InvalidRequest("A part of type 'audio_url' must have 'audio_url'.", f"{param}.audio_url")
                return AudioReference(self.audio_url.url, f"{param}.audio_url")
        raise UnsupportedOperation(
            f"Content of type '{self.type}' is not supported by this version, only 'text', 'image_url', 'input_audio' "
            "and 'audio_url' are.",
            param,
        )


class MadeFunctionCall(BaseModel):
    """The function that was called; arguments is the text of a JSON object."""

    model_config = ConfigDict(strict=True, extra="allow")
    known_extras: ClassVar = PASSED_ON

    name: str
    arguments: str = "{}"


class PriorToolCall(BaseModel):
    """A call that the model made in an earlier turn."""

    model_config = ConfigDict(strict=True, extra="allow")
    known_extras: ClassVar = PASSED_ON

    id: str | None = None
    type: Literal["function"] = "function"
    function: MadeFunctionCall


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    known_extras: ClassVar = PASSED_ON

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Parts[ContentPart] | None = None
    tool_calls: Calls[PriorToolCall] | None = None

    def for_template(self, param: str) -> dict[str, Any]:
        """Return the message as chat templates read it: the role developer becomes system, other fields stay.

        The content is a text; with images or sound, a tuple of texts and references.

        Args:
            param: the path of the message in the body, for errors.
        """
        calls = None if self.tool_calls is None else [call.model_dump(exclude_none=True) for call in self.tool_calls]
        return {
            **(self.model_extra or {}),
            **({} if calls is None else {"tool_calls": calls}),
            "role": "system" if self.role == "developer" else self.role,
            "content": self._content(param),
        }

    def _content(self, param: str) -> str | tuple[str | Reference, ...]:
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        parts = tuple(part.read(f"{param}.content[{number}]") for number, part in enumerate(self.content))
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else parts
