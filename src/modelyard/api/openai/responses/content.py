"""The content of messages and results in /v1/responses: texts, images and sound."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from modelyard.api.media.load import ImageReference, Reference
from modelyard.api.media.parts import Said, read_part
from modelyard.api.media.parts import content_of as joined_content
from modelyard.api.openai.conversation import InputAudio
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Detail

_IMAGE_PARTS = ("input_image", "image_url", "computer_screenshot")


def _address(value: Any) -> Any:
    """Return the address of chat completions' ``image_url``, an object, as this API writes it."""
    return value["url"] if isinstance(value, dict) and isinstance(value.get("url"), str) else value


class ContentPart(BaseModel):
    """One part of an item's content."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
    known_extras: ClassVar = PASSED_ON

    @model_validator(mode="before")
    @classmethod
    def _with_detail(cls, part: Any) -> Any:
        """Move the detail of chat completions' ``image_url`` to where this API has it."""
        if isinstance(part, dict) and isinstance(image := part.get("image_url"), dict) and "detail" in image:
            return {**part, "detail": part.get("detail") or image["detail"]}
        return part

    type: str
    text: str | None = None
    image_url: Annotated[str | None, BeforeValidator(_address, json_schema_input_type=str | None)] = None
    input_audio: InputAudio | None = None
    detail: Detail | None = None


def content_of(content: str | list[ContentPart] | None, param: str) -> str | tuple[str | Reference, ...]:
    """Return the text of the content; with images or sound, a tuple of texts and references.

    Args:
        content: the content of an item.
        param: the path of the item in the body, for errors.

    Raises:
        InvalidRequest: a part lacks the field of its type.
        UnsupportedOperation: a part is neither text, nor an image, nor sound.
    """
    if not isinstance(content, list):
        return content or ""
    said = [each for index, part in enumerate(content) for each in _read(part, f"{param}.content[{index}]")]
    return joined_content(said, "")[0]


def _read(part: ContentPart, param: str) -> list[Said]:
    if part.type == "input_audio":
        if part.input_audio is None:
            raise InvalidRequest(f"'{param}': An input_audio must have input_audio.", f"{param}.input_audio")
        return [part.input_audio.reference(f"{param}.input_audio")]
    if part.type not in _IMAGE_PARTS:
        return read_part(part.model_dump(exclude_none=True), param)
    if part.image_url is None:
        raise UnsupportedOperation(f"'{param}': An input_image must have an image_url: no files are kept.", param)
    return [ImageReference(part.image_url, part.detail or "auto", f"{param}.image_url")]
