"""What tools of MCP servers return, as text that a model reads. Pure.

Source: https://modelcontextprotocol.io/specification, "Tools", tool results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from modelyard.agent.result_text import bounded_result, joined
from modelyard.agent.tools import ToolResult
from modelyard.system.quantities import size_text

if TYPE_CHECKING:
    from mcp_types import BlobResourceContents, CallToolResult, ContentBlock, ReadResourceResult, TextResourceContents

_LEFT_OUT: Final = {"image": "An image", "audio": "A sound"}
_EMPTY: Final = "(The tool returned nothing.)"
_FAILED: Final = "The tool failed, and did not say why."


def result_of(result: CallToolResult, limit: int) -> ToolResult:
    """Return the result of a call.

    Args:
        result: as the server sent it.
        limit: bytes of its text; what is longer is cut, and the text says so.
    """
    is_error = bool(result.is_error)
    parts = _texts(result.content)
    text, size = joined(parts, limit)
    if not size and result.structured_content is not None:
        text, size = joined((json.dumps(result.structured_content, ensure_ascii=False),), limit)
    if not text.strip():
        text = _FAILED if is_error else _EMPTY
    return bounded_result(text, size, limit, is_error=is_error)


def resource_result_of(result: ReadResourceResult, limit: int) -> ToolResult:
    """Return what was read of a resource, at most ``limit`` bytes of it."""
    text, size = joined((_resource_text(each) for each in result.contents), limit)
    return bounded_result(text if text.strip() else "(The resource is empty.)", size, limit, is_error=False)


def failed(why: str) -> ToolResult:
    """Return the result of a call that could not be made, or was given up: a sentence for the model."""
    return ToolResult(why, is_error=True)


def _texts(blocks: Sequence[ContentBlock]) -> Iterator[str]:
    for block in blocks:
        match block.type:
            case "text":
                if block.text:
                    yield block.text
            case "image" | "audio":
                size = size_text(_decoded_bytes(block.data))
                yield f"[{_LEFT_OUT[block.type]} is left out: {block.mime_type}, {size}.]"
            case "resource_link":
                about = f" ({block.description})" if block.description else ""
                yield f"[Resource {block.name}: {block.uri}{about}]"
            case "resource":
                yield _resource_text(block.resource)


def _resource_text(resource: TextResourceContents | BlobResourceContents) -> str:
    # By its field: the classes are imported only where a server is connected.
    text = getattr(resource, "text", None)
    if isinstance(text, str):
        return text
    size = size_text(_decoded_bytes(getattr(resource, "blob", "")))
    return f"[A file is left out: {resource.uri}, {resource.mime_type or 'of an unknown type'}, {size}.]"


def _decoded_bytes(base64: str) -> int:
    return len(base64) * 3 // 4
