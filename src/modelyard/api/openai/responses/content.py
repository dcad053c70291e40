"""The content of messages and results in /v1/responses: texts, images and sound."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from modelyard.api.media.load import ImageReference, Reference
from modelyard.api.openai.conversation import InputAudio
from modelyard.api.serving.ignored_fields import PASSED_ON
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.protocol.prompts import Detail

TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
"""The types of parts whose ``text`` is text of the conversation."""

_IMAGE_PARTS = ("input_image", "computer_screenshot")


class ContentPart(BaseModel):
    """One part of an item's content."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())
    known_extras: ClassVar = PASSED_ON

    type: str
    text: str | None = None
    image_url: str | None = None
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
    if not isinstance(content, list) or all(part.type not in (*_IMAGE_PARTS, "input_audio") for part in content):
        return text_of(content, param)
    return tuple(_part(part, f"{param}.content[{index}]", param) for index, part in enumerate(content))


def _part(part: ContentPart, part_param: str, param: str) -> str | Reference:
    if part.type == "input_audio":
        if part.input_audio is None:
            raise InvalidRequest(f"'{part_param}': An input_audio must have input_audio.", f"{part_param}.input_audio")
        return part.input_audio.reference(f"{part_param}.input_audio")
    if part.type not in _IMAGE_PARTS:
        return text_of([part], param)
    if part.image_url is None:
        raise UnsupportedOperation(
            f"'{part_param}': An input_image must have an image_url: no files are kept.", part_param
        )
    return ImageReference(part.image_url, part.detail or "auto", f"{part_param}.image_url")


def text_of(content: str | list[ContentPart] | None, param: str) -> str:
    """Return the text of the content.

    Raises:
        UnsupportedOperation: a part is not text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_text(part, param) for part in content)


def _text(part: ContentPart, param: str) -> str:
    if part.type in TEXT_PARTS and part.text is not None:
        return part.text
    refusal: Any = (part.model_extra or {}).get("refusal")
    if part.type == "refusal" and isinstance(refusal, str):
        return refusal
    raise UnsupportedOperation(f"'{param}': Content of type '{part.type}' is not supported here.", param)
