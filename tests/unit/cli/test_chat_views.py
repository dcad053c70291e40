"""What an answer looks like while it streams, on a screen that pyte emulates."""

from __future__ import annotations

import io
import re
from queue import Empty

import pyte
import pytest
from rich.console import Console

from modelyard.cli.chat.answering import receive
from modelyard.cli.chat.approving import Approver
from modelyard.cli.chat.client import Ended, Interrupt, Piece, StreamEvent
from modelyard.cli.chat.markdown import MarkdownRenderer, split_finished
from modelyard.cli.chat.tool_calls import ToolStep
from modelyard.cli.chat.views import AnswerView, MarkdownView, PipeView, TerminalSize, WrappedView
from modelyard.cli.chat.word_wrap import WordWrap

ANSWER = """# Title of it

Some **bold** text that is long enough to be wrapped at forty columns, with `code` in it.
A line of its own, and <b>HTML</b> as it is.

- one item
- another item, which is long enough to be wrapped at forty columns
  - nested

3. three
4. four

| name | value |
|---|---|
| alpha | 1 |

```python
def hello() -> str:
    return "hello"
```

The end.
"""


class Screen:
    """A terminal that a view writes to."""

    def __init__(self, columns: int, rows: int = 24) -> None:
        self.size = TerminalSize(columns, rows)
        self._screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self._screen)
        self.written: list[str] = []

    def write(self, text: str) -> None:
        self.written.append(text)
        self._stream.feed(re.sub(r"\x1b\[\?2026[hl]", "", text))

    def resize(self, columns: int) -> None:
        self.size = TerminalSize(columns, self.size.rows)
        self._screen.resize(columns=columns)

    @property
    def lines(self) -> list[str]:
        top = ["".join(line[column].data for column in range(self.size.columns)) for line in self._screen.history.top]
        return [line.rstrip() for line in [*top, *self._screen.display]]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    def view(self) -> MarkdownView:
        console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
        return MarkdownView(MarkdownRenderer(console), self.write, lambda: self.size)


def stream(view: MarkdownView | WrappedView, text: str, step: int = 3) -> None:
    for start in range(0, len(text), step):
        view.text(text[start : start + step])
        view.tick()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_an_answer_is_shown_whole_and_no_word_is_broken(columns: int) -> None:
    screen = Screen(columns)
    view = screen.view()
    stream(view, ANSWER)
    view.close()
    words = re.findall(r"[A-Za-z<>/]+", re.sub(r"```\w*", "", ANSWER))
    shown = re.findall(r"[A-Za-z<>/]+", screen.text)
    assert shown == words
    assert max(map(len, screen.lines)) <= columns


def test_markdown_is_formatted_and_lines_stay_lines() -> None:
    screen = Screen(80)
    view = screen.view()
    stream(view, ANSWER)
    view.close()
    assert "Title of it\n\nSome bold text" in screen.text
    assert "with code in\nit.\nA line of its own, and <b>HTML</b> as it is." in screen.text
    assert " • one item\n" in screen.text
    assert " 3. three\n" in screen.text
    assert 'def hello() -> str:\n    return "hello"' in screen.text


def test_what_is_finished_is_written_once() -> None:
    screen = Screen(80)
    view = screen.view()
    view._next_frame = 0.0
    for word in ("First paragraph.\n\n", "Second ", "paragraph."):
        view.text(word)
        view._draw()
    view.close()
    assert sum(text.count("First paragraph.") for text in screen.written) == 1
    assert sum(text.count("Second") for text in screen.written) == 2
    assert screen.text == "First paragraph.\n\nSecond paragraph."


def test_lines_that_go_away_leave_the_cursor_at_the_end_of_the_others() -> None:
    screen = Screen(80)
    view = screen.view()
    for text in ("a\n\nb", "| x |\n|", "--|\n| y |"):
        view.text(text)
        view._draw()
    view.status("loading")
    view._draw()
    view.text("\n\nend")
    view.close()
    assert screen.text.split("\n")[:2] == ["a", ""]
    assert screen.text.endswith("\n\nend")
    assert "loading" not in screen.text


@pytest.mark.parametrize("rows", [2, 5, 10])
def test_a_block_that_is_taller_than_the_screen_is_shown_whole(rows: int) -> None:
    screen = Screen(40, rows)
    view = screen.view()
    code = "".join(f"line {number}\n" for number in range(60))
    for line in f"```\n{code}```".splitlines(keepends=True):
        view.text(line)
        view._draw()
    view.close()
    assert screen.text.split("\n") == [f"line {number}" for number in range(60)]


@pytest.mark.parametrize("columns", [25, 120])
def test_a_terminal_that_is_resized_loses_no_text(columns: int) -> None:
    screen = Screen(60, 8)
    view = screen.view()
    words = [f"word{number}" for number in range(300)]
    for number, word in enumerate(words):
        view.text(f"{word} ")
        view._draw()
        if number == 150:
            screen.resize(columns)
    view.close()
    written = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", "".join(screen.written))
    assert all(word in written.split() for word in words)


def test_reasoning_is_dimmed_and_its_time_is_said() -> None:
    screen = Screen(80)
    view = screen.view()
    view.reasoning("First I add.\nThen I")
    view.reasoning(" answer.")
    view.thought(2.13)
    view.text("It is 4.")
    view.close()
    assert screen.text == "First I add.\nThen I answer.\nThought for 2.1 s\n\nIt is 4."
    assert "\x1b[2mFirst I add." in "".join(screen.written)


class Arriving:
    """An answer on its way, as its own queue; None: nothing arrives for a while."""

    def __init__(self, *events: StreamEvent | None) -> None:
        self.events, self._left = self, list(events)

    def get(self, timeout: float) -> StreamEvent:
        event = self._left.pop(0)
        if event is None:
            raise Empty
        return event

    def close(self) -> None:
        pass


def nobody(view: AnswerView) -> Approver:
    """Asks nobody: no test here has a call that needs an approval."""
    return Approver(None, view, print, None)  # type: ignore[arg-type]


def call_of(phase: str, **data: object) -> ToolStep:
    return ToolStep("call_1", "calc_add", phase, data)


CALLING_TURN = (
    Piece(reasoning="A sum."),
    Piece("Let me *add*."),
    call_of("calling", arguments='{"a": 1, "b": 2}'),
    call_of("complete", content="3\x1b[2J\u202e", is_error=False, duration_ms=120.0),
    Piece(reasoning="\n\nIt is 3."),
    Piece("\n\nIt is **3**."),
    Ended("stop", {}, {}),
)


@pytest.mark.parametrize("columns", [40, 80])
def test_calls_of_tools_stand_between_the_texts_of_their_rounds(columns: int) -> None:
    screen = Screen(columns)
    view = screen.view()
    answer = receive(Arriving(*CALLING_TURN), view, nobody(view), clock=lambda: 0.0)  # type: ignore[arg-type]
    view.close()
    assert screen.text == (
        "A sum.\nThought for 0.0 s\n\nLet me add.\n\n"
        '-> calc_add {"a": 1, "b": 2}\n<- calc_add 0.1 s: 3\\x1b[2J\\u202e\n\n'
        "It is 3.\nThought for 0.0 s\n\nIt is 3."
    )
    assert answer.text == "Let me *add*.\n\nIt is **3**."


def test_a_terminal_without_styles_shows_calls_of_tools() -> None:
    screen = Screen(40)
    view = WrappedView(screen.write, lambda: screen.size)
    receive(Arriving(*CALLING_TURN), view, nobody(view), clock=lambda: 0.0)  # type: ignore[arg-type]
    view.close()
    assert "Let me *add*.\n\n-> calc_add {" in screen.text
    assert screen.text.endswith("\n\nThinking...\nIt is 3.\nThought for 0.0 s\n\nIt is **3**.")


def test_a_pipe_gets_the_texts_of_all_rounds_and_no_calls() -> None:
    pipe = io.StringIO()
    view = PipeView(pipe)
    receive(Arriving(*CALLING_TURN), view, nobody(view))  # type: ignore[arg-type]
    view.close()
    assert pipe.getvalue() == "Let me *add*.\n\nIt is **3**.\n"


def test_a_call_that_runs_for_long_shows_for_how_long_and_its_progress() -> None:
    statuses: list[str] = []

    class Statuses(AnswerView):
        def status(self, text: str) -> None:
            statuses.append(text)

    view, times = Statuses(), iter(range(100))
    progress = call_of("running", progress=2, total=5, message="half\x1b[2J")
    stream = Arriving(call_of("calling", arguments="{}"), None, progress, None, Interrupt())
    receive(stream, view, nobody(view), clock=lambda: next(times))  # type: ignore[arg-type]
    assert statuses == ["calc_add... 2 s", "calc_add: 2 of 5 half\\x1b[2J"]


def test_hidden_reasoning_leaves_its_time_alone() -> None:
    screen = Screen(80)
    view = screen.view()
    stream = Arriving(Piece(reasoning="secret"), None, Piece("It is 4."), Interrupt())
    times = iter(range(10))
    receive(stream, view, nobody(view), shows_reasoning=False, clock=lambda: next(times))  # type: ignore[arg-type]
    assert "Thinking... 1.0 s" in "".join(screen.written)
    view.close("(stopped)")
    assert screen.text == "Thought for 2.0 s\n\nIt is 4.\n(stopped)"
    assert "secret" not in "".join(screen.written)


def test_control_characters_of_an_answer_do_nothing_to_the_terminal() -> None:
    screen = Screen(80)
    view = screen.view()
    view.text("one\x1b[2Jtwo\x07 \x9b31m three\x1b]52;c;AAAA\x07\u202etxt")
    view.close("\x1b[2J")
    assert "\x1b[2J" not in "".join(screen.written)
    assert "\x1b]52" not in "".join(screen.written)
    assert "one[2Jtwo 31m three]52;c;AAAA" in screen.text


def test_a_table_that_is_too_wide_becomes_lines() -> None:
    head = "| " + " | ".join(f"head{number}" for number in range(8)) + " |"
    row = "| " + " | ".join(f"cell{number}" for number in range(8)) + " |"
    screen = Screen(40)
    view = screen.view()
    view.text(f"{head}\n{'|---' * 8}|\n{row}\n")
    view.close()
    assert "head7: cell7" in screen.text


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one", []),
        ("one\n\ntwo", ["one\n\n"]),
        ("- a\n\n- b", []),
        ("```\na\n\nb\n", []),
        ("```\na\n```\nb", ["```\na\n```\n"]),
        ("| a |\n|---|\n| b |\n\nend", ["| a |\n|---|\n| b |\n\n"]),
        ("a\n# b\nc", ["a\n", "# b\n"]),
        ("a\u2028b\x0c\n\nc", ["a\u2028b\x0c\n\n"]),
    ],
)
def test_a_block_is_finished_when_another_one_begins(text: str, finished: list[str]) -> None:
    blocks, rest = split_finished(text)
    assert blocks == finished
    assert "".join(blocks) + rest == text


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("one two three", "one two\nthree"),
        ("one\ntwo", "one\ntwo"),
        ("  indented word", "  indented\nword"),
        ("averyverylongword and", "averyverylongword\nand"),
        ("日本語日本語日本語", "日本語日本\n語日本語"),
        ("a\tb", "a    b"),
        ("one two\n\n", "one two\n\n"),
    ],
)
def test_plain_text_is_wrapped_at_words(text: str, wrapped: str, step: int) -> None:
    wrap = WordWrap()
    written = "".join(wrap.feed(text[start : start + step], 10) for start in range(0, len(text), step))
    assert written + wrap.end(10) == wrapped


def test_a_terminal_without_styles_gets_plain_text() -> None:
    screen = Screen(40)
    view = WrappedView(screen.write, lambda: screen.size)
    view.reasoning("Let me think.")
    view.thought(0.5)
    stream(view, "Some **bold** text that is long enough to be wrapped.")
    view.close("(stopped)")
    assert "\x1b" not in "".join(screen.written)
    assert screen.text == (
        "Thinking...\nLet me think.\nThought for 0.5 s\n\n"
        "Some **bold** text that is long enough\nto be wrapped.\n(stopped)"
    )


def test_a_pipe_gets_the_answer_alone_and_a_line_break_at_its_end() -> None:
    pipe = io.StringIO()
    view = PipeView(pipe)
    view.reasoning("Let me think.")
    view.thought(0.5)
    view.text("It **is**")
    view.text(" 4.")
    view.close("(stopped)")
    assert pipe.getvalue() == "It **is** 4.\n"
