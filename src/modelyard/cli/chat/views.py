"""What an answer looks like while it streams: Markdown on a terminal, plain wrapped text, or bytes for a pipe."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TextIO

from typing_extensions import override

from modelyard.cli.chat.live_region import LiveRegion
from modelyard.cli.chat.markdown import MarkdownRenderer, RenderedLine, split_finished
from modelyard.cli.chat.word_wrap import WordWrap, printable

_DIM: Final = "dim"
_BOLD: Final = "bold"
_EMPTY: Final = RenderedLine("", "")

# Seconds between two pictures of a text that grows, and how much of the time drawing may take.
_FRAME_S: Final = 0.05
_DRAWING_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Columns and rows of a terminal."""

    columns: int
    rows: int


class AnswerView:
    """Shows one answer; this one shows nothing.

    The calls come in this order: status, reasoning, thought, text, close. All but the last are optional. Where
    tools are called, ``tool`` and ``ask`` come after the text, and all of it again for each further round of the model.
    """

    def status(self, text: str) -> None:
        """Show what the answer waits for, until the next call."""

    def reasoning(self, text: str) -> None:
        """Add a piece of the reasoning."""

    def thought(self, seconds: float) -> None:
        """End the reasoning, which took that long."""

    def text(self, text: str) -> None:
        """Add a piece of the answer."""

    def tool(self, line: str) -> None:
        """Add what has become of a call of a tool."""

    def ask(self, text: str, question: str) -> bool:  # noqa: ARG002
        """Show what the user is to decide, and a question below all else. Return whether the user sees it."""
        return False

    def answered(self) -> None:
        """Remove the question."""

    def tick(self) -> None:
        """Draw what is not drawn yet. Called several times a second."""

    def close(self, note: str = "") -> None:
        """End the answer, with a note below it."""


def thought_line(seconds: float) -> str:
    """Return the line that ends the reasoning."""
    return f"Thought for {seconds:.1f} s"


class _Section:
    """A text that grows, as lines of which the first ones are written for good.

    Args:
        render: returns the lines of a text for a width.
        split: returns the blocks of a text that are finished, and the rest.
        has_gaps: whether an empty line separates blocks.
    """

    def __init__(
        self,
        render: Callable[[str, int], list[RenderedLine]],
        split: Callable[[str], tuple[list[str], str]],
        *,
        has_gaps: bool,
    ) -> None:
        self._render, self._split, self._has_gaps = render, split, has_gaps
        self._rest = ""
        # The lines of the rest that left the screen at the top, and the width for which they were broken.
        self._written: list[RenderedLine] = []
        self._width = 0

    def add(self, text: str) -> None:
        self._rest += text

    def lines(self, width: int, rows: int, *, ends: bool) -> tuple[list[RenderedLine], list[RenderedLine]]:
        """Return the lines that are finished since the last call, and those that may change, at most ``rows``."""
        blocks, self._rest = self._split(self._rest)
        finished: list[RenderedLine] = []
        for block in blocks:
            finished += self._unwritten(self._render(block, width), width)
            if self._has_gaps:
                finished.append(_EMPTY)
            self._written = []
        open_lines = self._unwritten(self._render(self._rest, width), width)
        leaving = len(open_lines) if ends else max(0, len(open_lines) - rows)
        self._written += open_lines[:leaving]
        return finished + open_lines[:leaving], open_lines[leaving:]

    def _unwritten(self, lines: list[RenderedLine], width: int) -> list[RenderedLine]:
        if width != self._width:
            # The terminal was resized: skip as much text as is written, but rather show a line twice than not at all.
            letters, self._width = sum(_letters(line) for line in self._written), width
            ends = list(accumulate(_letters(line) for line in lines))
            self._written = lines[: bisect_right(ends, letters)]
        return lines[len(self._written) :]


def _letters(line: RenderedLine) -> int:
    return len(line.plain) - line.plain.count(" ")


def _split_at_lines(text: str) -> tuple[list[str], str]:
    *finished, rest = text.split("\n")
    return finished, rest


class MarkdownView(AnswerView):
    """Markdown on a terminal: finished blocks are written once, and the last one is drawn again as it grows.

    Args:
        renderer: renders Markdown.
        write: writes to the terminal and flushes.
        size: returns the size of the terminal.
    """

    def __init__(
        self, renderer: MarkdownRenderer, write: Callable[[str], object], size: Callable[[], TerminalSize]
    ) -> None:
        self._renderer, self._size = renderer, size
        self._region = LiveRegion(write)
        self._begin_round()
        self._status = self._question = ""
        self._finished: list[RenderedLine] = []
        self._is_dirty = False
        self._next_frame = 0.0

    def _begin_round(self) -> None:
        self._answer = _Section(self._renderer.markdown, split_finished, has_gaps=True)
        self._thinking = _Section(self._dim, _split_at_lines, has_gaps=False)
        self._shown = self._thinking
        self._is_after_tool = False

    @override
    def status(self, text: str) -> None:
        if text != self._status:
            self._status = text
            self._changed()

    @override
    def tool(self, line: str) -> None:
        self._status = ""
        width, rows = self._room()
        before = self._shown.lines(width, rows, ends=True)[0]
        # An empty line separates the calls from what the model writes before and after them.
        if before and before[-1].plain:
            before.append(_EMPTY)
        self._begin_round()
        self._finished += [*before, *self._dim(line, width)]
        self._is_after_tool = True
        self._changed()

    @override
    def ask(self, text: str, question: str) -> bool:
        self.tool(text)
        self._question = question
        self._draw()
        return True

    @override
    def answered(self) -> None:
        self._question = ""
        self._changed()

    def _separate_from_tools(self) -> None:
        if self._is_after_tool:
            self._is_after_tool = False
            self._finished.append(_EMPTY)

    @override
    def reasoning(self, text: str) -> None:
        self._separate_from_tools()
        self._thinking.add(printable(text))
        self._status = ""
        self._changed()

    @override
    def thought(self, seconds: float) -> None:
        self._status = ""
        width, rows = self._room()
        self._finished += self._thinking.lines(width, rows, ends=True)[0]
        self._finished += [*self._dim(thought_line(seconds), width), _EMPTY]
        self._shown = self._answer
        self._changed()

    @override
    def text(self, text: str) -> None:
        self._separate_from_tools()
        self._shown = self._answer
        self._answer.add(printable(text))
        self._status = ""
        self._changed()

    @override
    def tick(self) -> None:
        if self._is_dirty and time.monotonic() >= self._next_frame:
            self._draw()

    @override
    def close(self, note: str = "") -> None:
        self._status = self._question = ""
        self._draw(note, ends=True)

    def _changed(self) -> None:
        self._is_dirty = True
        self.tick()

    def _room(self) -> tuple[int, int]:
        size = self._size()
        return max(1, size.columns), max(1, size.rows - 1)

    def _dim(self, text: str, width: int) -> list[RenderedLine]:
        return self._renderer.text(printable(text), width, _DIM) or [_EMPTY]

    def _draw(self, note: str = "", *, ends: bool = False) -> None:
        began = time.monotonic()
        width, rows = self._room()
        finished, growing = self._shown.lines(width, rows, ends=ends)
        finished, self._finished = [*self._finished, *finished], []
        if note:
            finished += self._dim(note, width)
        if last := self._question or self._status:
            growing = [*growing, *self._renderer.text(printable(last), width, _BOLD if self._question else _DIM)][
                -rows:
            ]
        self._region.draw([*finished, *growing], width, finished=len(finished))
        self._is_dirty = False
        took = time.monotonic() - began
        self._next_frame = began + max(_FRAME_S, took / _DRAWING_SHARE)


class WrappedView(AnswerView):
    """Plain text on a terminal that shows no styles, wrapped at words.

    Args:
        write: writes to the terminal and flushes.
        size: returns the size of the terminal.
    """

    def __init__(self, write: Callable[[str], object], size: Callable[[], TerminalSize]) -> None:
        self._write, self._size = write, size
        self._wrap = WordWrap()
        self._began_reasoning = self._is_after_tool = self._strips_text = False

    @override
    def tool(self, line: str) -> None:
        self._end_line()
        self._write(("" if self._is_after_tool else "\n") + self._wrap.feed(line, self._size().columns))
        self._end_line()
        self._began_reasoning = False
        self._is_after_tool = self._strips_text = True

    @override
    def ask(self, text: str, question: str) -> bool:
        self.tool(text)
        self.tool(question)
        return True

    def _separate_from_tools(self) -> None:
        if self._is_after_tool:
            self._is_after_tool = False
            self._write("\n")

    @override
    def reasoning(self, text: str) -> None:
        self._separate_from_tools()
        if not self._began_reasoning:
            self._began_reasoning = True
            self._write("Thinking...\n")
        self._write(self._wrap.feed(text, self._size().columns))

    @override
    def thought(self, seconds: float) -> None:
        self._end_line()
        self._write(f"{thought_line(seconds)}\n\n")

    @override
    def text(self, text: str) -> None:
        if self._strips_text:
            # An empty line is there already, so the line breaks that separate the texts of two rounds are left out.
            text = text.lstrip("\n")
            self._strips_text = not text
            if not text:
                return
        self._separate_from_tools()
        self._write(self._wrap.feed(text, self._size().columns))

    @override
    def close(self, note: str = "") -> None:
        self._end_line()
        if note:
            self._write(f"{note}\n")

    def _end_line(self) -> None:
        rest = self._wrap.end(self._size().columns)
        self._write(rest + ("\n" if self._wrap.is_within_line else ""))
        self._wrap = WordWrap()


class PipeView(AnswerView):
    """The text of an answer as it is, for another program. Reasoning and notes are left out.

    Args:
        stream: takes the text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = "\n"

    @override
    def text(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()
            self._last = text[-1]

    @override
    def close(self, note: str = "") -> None:
        if self._last != "\n":
            self.text("\n")
