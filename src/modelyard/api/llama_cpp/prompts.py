"""The shapes of a prompt that llama.cpp's server takes.

Source: llama.cpp, tools/server/README.md, "POST /completion", and server-common.cpp, tokenize_input_prompts.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from modelyard.api.media.load import AudioReference, ImageReference, Reference
from modelyard.api.openai.schema import MAX_PROMPTS
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Pieces, Prompt, Text, Tokens, Written

MEDIA_MARKER: Final = "<__media__>"
"""Stands for an image or a clip of sound in a prompt."""

# First bytes of files of sound, with their offsets.
_SOUND: Final = ((8, b"WAVE"), (0, b"ID3"), (0, b"fLaC"), (0, b"OggS"), (0, b"\xff\xfb"), (0, b"\xff\xf3"))
_HEAD_DIGITS: Final = 16


def prompts_of(value: Any) -> list[Prompt]:
    """Return the prompts of the field ``prompt``: one, or each of a list.

    Raises:
        InvalidRequest: it has another shape, or too many prompts.
    """
    # A list with a token id is one prompt, whatever else is in it.
    if not isinstance(value, list) or not value or any(type(part) is int for part in value):
        return [_prompt(value, "prompt")]
    if len(value) > MAX_PROMPTS:
        raise InvalidRequest(f"'prompt' has {len(value)} prompts, and {MAX_PROMPTS} are the most.", "prompt")
    return [_prompt(part, f"prompt[{index}]") for index, part in enumerate(value)]


def _prompt(value: Any, param: str) -> Prompt:
    match value:
        case str():
            return Text(value)
        case [*ids] if ids and all(type(part) is int for part in ids):
            return Tokens(tuple(ids))
        case [*parts] if parts and all(isinstance(part, str) or type(part) is int for part in parts):
            return Pieces(tuple(parts))
        case {"prompt_string": str(text)}:
            return _with_media(text, value.get("multimodal_data"), param)
    raise InvalidRequest(
        f"'{param}' must be a text, a list of token ids and texts that is not empty, or an object with a "
        "'prompt_string'; 'prompt' may also be a list of these.",
        param,
    )


def _with_media(text: str, data: Any, param: str) -> Prompt:
    """Return a text whose markers stand for the files in ``data``, each in base64."""
    if not data:
        return Text(text)
    files = [data] if isinstance(data, str) else data
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise InvalidRequest(f"'{param}.multimodal_data' must be a list of files in base64.", param)
    texts = text.split(MEDIA_MARKER)
    if len(texts) != len(files) + 1:
        raise InvalidRequest(
            f"'{param}' has {len(texts) - 1} times the marker {MEDIA_MARKER}, and 'multimodal_data' has {len(files)} "
            "files. Write one marker for each.",
            param,
        )
    parts: list[str | Reference] = [texts[0]]
    for index, (file, behind) in enumerate(zip(files, texts[1:], strict=True)):
        parts += [_reference(file, f"{param}.multimodal_data[{index}]"), behind]
    return Written(tuple(parts))


def _reference(file: str, param: str) -> Reference:
    url = f"data:;base64,{file}"
    return AudioReference(url, param) if _is_sound(file) else ImageReference(url, "auto", param)


def _is_sound(file: str) -> bool:
    try:
        head = base64.b64decode(file[:_HEAD_DIGITS])
    except ValueError:
        # The loader refuses it with a message.
        return False
    return any(head[at : at + len(signature)] == signature for at, signature in _SOUND)
