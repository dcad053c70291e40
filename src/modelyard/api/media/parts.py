"""What the parts of a message's content say, in the words of all dialects.

Conversations move between APIs: a client that began one with Anthropic's goes on with OpenAI's, and libraries
translate some parts and leave others. So each dialect reads the parts of all. Parts that say nothing to a model, such
as reasoning that is encrypted for another one, are left out; parts that say what cannot be read here are refused by
name.

Sources: https://platform.openai.com/docs/api-reference/chat/create, https://docs.anthropic.com/en/api/messages,
https://docs.vllm.ai/en/latest/features/multimodal_inputs.html.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from modelyard.api.media.load import ImageReference, Reference
from modelyard.errors import InvalidRequest, UnsupportedOperation

_TEXTS: Final = frozenset({"text", "input_text", "output_text"})
_THOUGHTS: Final = frozenset({"thinking", "reasoning", "reasoning_text", "summary_text"})

# Reasoning that only its own API can read, and what its tools did on its servers.
_SILENT: Final = frozenset(
    {
        *("redacted_thinking", "encrypted_content", "container_upload", "server_tool_use", "mcp_tool_use"),
        "mcp_tool_listing",
        *("web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result", "tool_search_tool_result"),
        *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_reference"),
    }
)
_MAX_DEPTH: Final = 8

READ_FIELDS: Final = frozenset(
    {
        *("refusal", "thinking", "reasoning", "summary", "content", "source", "title", "context", "file", "file_data"),
        *("filename", "signature", "data", "tool_use_id", "is_error", "citations", "annotations", "logprobs"),
        # Every prompt is cached.
        "cache_control",
    }
)
"""Fields of parts that ``read_part`` reads, or that say nothing to a model."""


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning among the parts of a message."""

    text: str


Said = str | Reference | Thought
"""What a part says."""


def read_part(part: Mapping[str, Any], param: str, depth: int = 0) -> list[Said]:
    """Return what a part says, in order; nothing for one that says nothing.

    Args:
        part: the part.
        param: its path in the body, for errors.
        depth: the number of parts that it is in.

    Raises:
        InvalidRequest: it lacks the field of its type, or nests too deeply.
        UnsupportedOperation: parts of its type, or with its source, cannot be read.
    """
    kind = str(part.get("type", ""))
    if depth > _MAX_DEPTH:
        raise InvalidRequest(f"'{param}' nests more than {_MAX_DEPTH} parts in each other.", param)
    if kind in _SILENT:
        return []
    if kind in _THOUGHTS:
        return _thought(part)
    match kind, part:
        case "refusal", {"refusal": str(text)}:
            return [text]
        case ("image", {"source": dict(source)}):
            return [image_of(source, f"{param}.source")]
        case ("image_url" | "input_image", {"image_url": str(url) | {"url": str(url)}}):
            return [ImageReference(url, "auto", f"{param}.image_url")]
        case "document", {"source": dict(source)}:
            return [*_labels(part, "title", "context"), *_document(source, f"{param}.source", depth)]
        case (("file" | "input_file"), _):
            return _file(part, param)
        case "search_result", {"content": content}:
            return [*_labels(part, "title", "source"), *_nested(content, f"{param}.content", depth)]
        case (("tool_result" | "mcp_tool_result" | "compaction"), _):
            return _nested(part.get("content"), f"{param}.content", depth)
        case _, {"text": str(text)}:
            return [text]
    if kind in _TEXTS:
        raise InvalidRequest(f"A part of type '{kind}' must have 'text'.", f"{param}.text")
    raise UnsupportedOperation(f"'{param}': Content of type '{kind}' is not supported here.", param)


def image_of(source: Mapping[str, Any], param: str) -> ImageReference:
    """Return a reference to the image of Anthropic's ``source``.

    Raises:
        UnsupportedOperation: the source is of another type.
    """
    match source:
        case {"type": "base64", "data": str(data)}:
            return ImageReference(f"data:;base64,{data}", "auto", param)
        case {"type": "url", "url": str(url)}:
            return ImageReference(url, "auto", param)
    raise UnsupportedOperation(
        f"'{param}': An image must have a source of type 'base64', with 'data', or of type 'url', with 'url'.", param
    )


def content_of(said: Sequence[Said], between: str) -> tuple[str | tuple[str | Reference, ...], str]:
    """Return the content and the reasoning that parts say together.

    Args:
        said: what the parts say.
        between: what stands between texts.

    Returns:
        The content, a text, or with images or sound a tuple of texts and references; and the reasoning, "" for none.
    """
    thoughts = "\n".join(part.text for part in said if isinstance(part, Thought))
    parts = [part for part in said if not isinstance(part, Thought)]
    texts = [part for part in parts if isinstance(part, str)]
    return (between.join(texts) if len(texts) == len(parts) else tuple(parts)), thoughts


def _thought(part: Mapping[str, Any]) -> list[Said]:
    for name in ("thinking", "text", "reasoning"):
        if isinstance(text := part.get(name), str):
            return [Thought(text)] if text else []
    nested = part.get("summary") or part.get("content")
    if not isinstance(nested, list):
        return [Thought(nested)] if isinstance(nested, str) and nested else []
    texts = [piece.get("text") for piece in nested if isinstance(piece, Mapping)]
    return [Thought(text) for text in texts if isinstance(text, str) and text]


def _labels(part: Mapping[str, Any], *names: str) -> list[Said]:
    return [text for name in names if isinstance(text := part.get(name), str) and text]


def _nested(content: Any, param: str, depth: int) -> list[Said]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    said: list[Said] = []
    for index, part in enumerate(content):
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, Mapping):
            said += read_part(part, f"{param}[{index}]", depth + 1)
    return said


def _document(source: Mapping[str, Any], param: str, depth: int) -> list[Said]:
    match source:
        case {"type": "text", "data": str(text)}:
            return [text]
        case {"type": "content", "content": content}:
            return _nested(content, f"{param}.content", depth)
        case {"type": "base64", "media_type": str(media_type), "data": str(data)} if media_type.startswith("text/"):
            return [_decoded(data, param)]
    kind = source.get("media_type") or source.get("type")
    raise UnsupportedOperation(
        f"'{param}': A document must be text: a source of type 'text', 'content', or 'base64' with a media_type of "
        f"text; '{kind}' cannot be read here. Send its text.",
        param,
    )


def _file(part: Mapping[str, Any], param: str) -> list[Said]:
    """Return the text of OpenAI's ``file`` or ``input_file`` with a data URL of text."""
    nested = part.get("file")
    file = nested if isinstance(nested, Mapping) else part
    data = file.get("file_data")
    if isinstance(data, str) and data[:10].lower() == "data:text/":
        head, _, body = data.partition(",")
        text = _decoded(body, param) if head.endswith(";base64") else unquote_to_bytes(body).decode("utf-8", "replace")
        return [*_labels(file, "filename"), text]
    raise UnsupportedOperation(
        f"'{param}': A part of type '{part.get('type')}' must have file_data, a data URL of text such as "
        "'data:text/plain;base64,…'. Send its text.",
        param,
    )


def _decoded(data: str, param: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError) as broken:
        raise InvalidRequest(f"'{param}': The data are no base64: {broken}.", param) from broken
