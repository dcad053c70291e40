"""Markdown as lines of a terminal, and the parts of a growing text that no later text changes.

rich renders it. What a chat needs differs from rich's own elements: line breaks of the text stay, HTML is shown as it
is written, headings are on the left, code has no padding that would be copied with it, tables lose no text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, Final

from markdown_it import MarkdownIt
from rich import box
from rich.console import COLOR_SYSTEMS, Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, ListItem, Markdown, MarkdownElement, TableElement
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

# Colours of the terminal's own palette, so that code is readable on light and dark ground.
_CODE_THEME: Final = "ansi_dark"

# Columns of a terminal for each column of a table, below which a table is shown as one line a cell.
_MIN_CELL_WIDTH: Final = 8


@dataclass(frozen=True, slots=True)
class RenderedLine:
    """One line of a terminal, without its line break.

    Attributes:
        plain: its text.
        styled: the text with escape sequences for its colours.
    """

    plain: str
    styled: str


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("image")


def split_finished(text: str) -> tuple[list[str], str]:
    """Split a text that grows into blocks that are finished, and the rest, in which its last block begins.

    A block is finished once another one begins after it: in CommonMark later lines do not change it then, except for
    link definitions, which chats hardly have.
    """
    tokens = _parser().parse(text)
    starts = [token.map[0] for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
    if len(starts) < 2:
        return [], text
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    bounds = [0, *starts[1:]]
    blocks = ["".join(lines[start:end]) for start, end in pairwise(bounds)]
    return blocks, "".join(lines[bounds[-1] :])


class MarkdownRenderer:
    """Renders blocks of Markdown for a terminal.

    The texts have no control characters: see ``printable``.

    Args:
        console: the terminal, for its colours.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def markdown(self, text: str, width: int) -> list[RenderedLine]:
        """Return the lines of a block of Markdown, at most ``width`` columns wide, without empty lines around it."""
        return self._lines(_ChatMarkdown(text), width)

    def text(self, text: str, width: int, style: str = "") -> list[RenderedLine]:
        """Return the lines of plain text in one style, wrapped at words."""
        return self._lines(Text(text.strip("\n"), style=style, overflow="fold"), width)

    def _lines(self, content: RenderableType, width: int) -> list[RenderedLine]:
        options = self._console.options.update(width=max(1, width), height=None, highlight=False, markup=False)
        lines = [_line(segments, self._console) for segments in self._console.render_lines(content, options, pad=False)]
        filled = [index for index, line in enumerate(lines) if line.plain]
        return lines[filled[0] : filled[-1] + 1] if filled else []


def _line(segments: Iterable[Segment], console: Console) -> RenderedLine:
    """Join segments, without blanks at the end."""
    kept = [segment for segment in segments if not segment.control]
    plain = "".join(segment.text for segment in kept).rstrip()
    system = COLOR_SYSTEMS.get(console.color_system or "")
    styled, left = "", len(plain)
    for segment in kept:
        part = segment.text[:left]
        left -= len(part)
        styled += part if segment.style is None or not part else segment.style.render(part, color_system=system)
    return RenderedLine(plain, styled)


class _Heading(Heading):
    LEVEL_ALIGN: ClassVar = {}


class _CodeBlock(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).removesuffix("\n")
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, background_color="default")


class _ListItem(ListItem):
    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        """Render an item with its number and a full stop."""
        width = len(str(last_number)) + 3
        lines = console.render_lines(self.elements, options.update(width=options.max_width - width), style=self.style)
        style = console.get_style("markdown.item.number", default="none")
        for index, line in enumerate(lines):
            yield Segment((f"{number}." if index == 0 else "").rjust(width - 1) + " ", style)
            yield from line
            yield Segment.line()


class _Table(TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        row = None if self.header is None else self.header.row
        heads = [] if row is None else [cell.content for cell in row.cells]
        rows = [] if self.body is None else [[cell.content for cell in row.cells] for row in self.body.rows]
        if len(heads) * _MIN_CELL_WIDTH > options.max_width:
            for cells in rows:
                for head, content in zip(heads, cells, strict=False):
                    yield Text.assemble((f"{head.plain}: ", "markdown.table.header"), content)
                yield Text("")
            return
        table = Table(box=box.SIMPLE, pad_edge=False, style="markdown.table.border", collapse_padding=True)
        for head in heads:
            title = Text(head.plain, "markdown.table.header")
            table.add_column(title, justify=head.justify or "default", overflow="fold")
        for cells in rows:
            table.add_row(*cells[: len(heads)])
        yield table


class _ChatMarkdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "list_item_open": _ListItem,
        "table_open": _Table,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme=_CODE_THEME, hyperlinks=False)
        self.parsed = _parser().parse(text)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"
