"""Answers as HTML for notebooks. Models write it, so it must not run, and must load nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.system.printable import shortened

_NOTE = '<div style="opacity:.6;font-size:85%;margin-top:.5em">{}</div>'
_PLAIN = '<pre style="white-space:pre-wrap">{}</pre>'


MAX_SUMMARY_CHARS: Final = 120
"""Characters of a call that its summary shows."""

MAX_RESULT_CHARS: Final = 4000
"""Characters of its result that a notebook keeps."""


@dataclass(frozen=True, slots=True)
class RanCall:
    """A call of a tool that was run for the model.

    Attributes:
        call: the tool and its arguments.
        result: as the model read it.
        is_error: whether the tool failed.
    """

    call: str
    result: str
    is_error: bool


def answer_html(
    content: str | None, reasoning: str | None, calls: Sequence[str], note: str = "", ran: Sequence[RanCall] = ()
) -> str:
    """Return an answer as HTML: its Markdown rendered, its reasoning and what tools gave folded, its calls as code.

    HTML in the text is shown as text, and images are not fetched: an address could carry a conversation elsewhere.
    """
    parts = []
    if reasoning:
        parts.append(f"<details><summary>Reasoning</summary>{_PLAIN.format(html.escape(reasoning))}</details>")
    parts += map(_ran_html, ran)
    if content:
        parts.append(_markdown(content))
    parts += [f"<pre>{html.escape(call)}</pre>" for call in calls]
    if note:
        parts.append(_NOTE.format(html.escape(note)))
    return f"<div>{''.join(parts)}</div>"


def _ran_html(ran: RanCall) -> str:
    summary = html.escape(shortened(ran.call, MAX_SUMMARY_CHARS))
    failed = " failed" if ran.is_error else ""
    result = _PLAIN.format(html.escape(shortened(ran.result, MAX_RESULT_CHARS)))
    return f"<details><summary><code>{summary}</code>{failed}</summary>{result}</details>"


def plain_html(text: str, note: str) -> str:
    """Return a text as HTML, as it is."""
    return f"<div>{_PLAIN.format(html.escape(text))}{_NOTE.format(html.escape(note))}</div>"


def _markdown(text: str) -> str:
    # Only notebooks need it.
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    return str(renderer.disable("image").render(text))
