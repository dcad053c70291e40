"""The text of a tool's result, as a model can read it, within a bound. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.agent.tools import ToolResult


def joined(parts: Iterable[str], limit: int) -> tuple[str, int]:
    """Return texts as paragraphs, cut to ``limit`` bytes, and the size of the whole in bytes."""
    kept: list[bytes] = []
    size = 0
    for part in parts:
        # Text that is no UTF-8 cannot be sent on, and a tokenizer may take NUL for an end.
        encoded = part.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
        encoded = b"\n" + encoded if size else encoded
        kept.append(encoded[: max(0, limit - size)])
        size += len(encoded)
    return b"".join(kept).decode("utf-8", "ignore"), size


def bounded_result(text: str, size: int, limit: int, *, is_error: bool) -> ToolResult:
    """Return what ``joined`` made as a result, which says so where it was cut."""
    if size <= limit:
        return ToolResult(text, is_error)
    note = f"\n\n[The result was cut here: it has {size} bytes, and {limit} are the limit.]"
    return ToolResult(text + note, is_error, is_cut=True)
