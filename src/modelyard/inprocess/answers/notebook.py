"""Answers as HTML for notebooks. Models write it, so it must not run, and must load nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence

_NOTE = '<div style="opacity:.6;font-size:85%;margin-top:.5em">{}</div>'
_PLAIN = '<pre style="white-space:pre-wrap">{}</pre>'


def answer_html(content: str | None, reasoning: str | None, calls: Sequence[str], note: str = "") -> str:
    """Return an answer as HTML: its Markdown rendered, its reasoning folded, its calls as code.

    HTML in the text is shown as text, and images are not fetched: an address could carry a conversation elsewhere.
    """
    parts = []
    if reasoning:
        parts.append(f"<details><summary>Reasoning</summary>{_PLAIN.format(html.escape(reasoning))}</details>")
    if content:
        parts.append(_markdown(content))
    parts += [f"<pre>{html.escape(call)}</pre>" for call in calls]
    if note:
        parts.append(_NOTE.format(html.escape(note)))
    return f"<div>{''.join(parts)}</div>"


def plain_html(text: str, note: str) -> str:
    """Return a text as HTML, as it is."""
    return f"<div>{_PLAIN.format(html.escape(text))}{_NOTE.format(html.escape(note))}</div>"


def _markdown(text: str) -> str:
    # Only notebooks need it.
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    return str(renderer.disable("image").render(text))
