"""Log lines stay whole: on a terminal above its bars, and whatever clients have sent."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pyte
import pytest
from rich.console import Console

from modelyard.api.middleware.access_log import LOGGER as ACCESS_LOGGER
from modelyard.cli.load_bars import LoadBars
from modelyard.cli.loading import StepLines
from modelyard.cli.log import ConsoleHandler, LineFormatter, ServerLog
from modelyard.config import Server
from modelyard.hub import Progress

FORM = "%(levelname)s %(message)s"


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    log = logging.getLogger("test of the console")
    log.propagate, log.level = False, logging.INFO
    yield log
    log.handlers.clear()


def opened(log: logging.Logger, console: Console) -> ConsoleHandler:
    handler = ConsoleHandler(console)
    handler.setFormatter(LineFormatter(FORM))
    log.addHandler(handler)
    return handler


def test_a_message_with_line_breaks_is_one_line_and_a_traceback_its_own(log: logging.Logger) -> None:
    console = Console(file=io.StringIO())
    opened(log, console)
    try:
        raise ValueError("sent\x1b[2J")
    except ValueError:
        log.exception("a\nERROR forged")
    said = console.file.getvalue()
    assert said.startswith("ERROR a\\nERROR forged\nTraceback ")
    assert said.endswith("ValueError: sent\\x1b[2J\n")


def test_without_a_terminal_lines_are_plain(log: logging.Logger) -> None:
    console = Console(file=io.StringIO())
    opened(log, console).is_drawing = True
    log.warning("[bold]x[/] %s", "y" * 300)
    assert console.file.getvalue() == f"WARNING [bold]x[/] {'y' * 300}\n"


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_the_level_of_a_warning_is_coloured_where_that_is_wanted(
    log: logging.Logger, environment: dict[str, str], coloured: bool
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", _environ=environment)
    opened(log, console)
    log.warning("x")
    said = console.file.getvalue()
    assert ("\x1b[33m" in said) is coloured
    assert "x\n" in said


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_line_of_the_log_never_shares_a_line_with_a_bar(log: logging.Logger, width: int) -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=30, _environ={"TERM": "xterm-256color"}
    )
    opened(log, console).is_drawing = True
    bars = LoadBars(console)
    for step in range(10):
        bars.show({"one": Progress("loading", step / 10), "two": Progress("downloading", step / 10)})
        log.info("line %d", step)
    screen = pyte.Screen(width, 30)
    pyte.Stream(screen).feed(console.file.getvalue().replace("\n", "\r\n"))
    shown = [line.rstrip() for line in screen.display]
    assert shown[:10] == [f"INFO line {step}" for step in range(10)]
    assert [line.split()[:2] for line in shown[10:12]] == [["Loading", "one"], ["Downloading", "two"]]
    bars.close()


def test_bars_fold_long_ids_and_never_cut_them() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=40, height=20, _environ={"TERM": "xterm"})
    name = "a-very-long-identifier-of-a-model-that-is-folded"
    bars = LoadBars(console)
    bars.show({name: Progress("loading", 0.5), "m": Progress("downloading", 0.1)})
    bars.close()
    drawn = "".join(console.file.getvalue().split("Downloading m")[0].split())
    assert "…" not in drawn
    assert name[-8:] in drawn


@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_is_drawn_where_the_cursor_cannot_be_moved(is_terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, _environ={"TERM": "dumb"})
    bars = LoadBars(console)
    bars.show({"m": Progress("loading", 0.5)})
    bars.close()
    assert console.file.getvalue() == ""


def test_a_long_step_has_a_line_at_its_start_and_one_now_and_then() -> None:
    lines = StepLines(pause_s=10.0)
    steps = {"m": Progress("downloading", 0.25)}
    assert lines.of(steps, 100.0) == ["m: downloading"]
    assert lines.of(steps, 105.0) == []
    assert lines.of(steps, 110.0) == ["m: downloading, 25%"]
    assert lines.of({"m": Progress("converting", 0.0)}, 111.0) == ["m: converting"]
    assert lines.of({"m": Progress("loading", 0.1)}, 200.0) == [], "a load has a line of its own"
    assert lines.of({}, 201.0) == []
    assert lines.of(steps, 202.0) == ["m: downloading"]


def test_the_parts_of_a_step_have_no_lines_of_their_own() -> None:
    lines = StepLines(pause_s=10.0)
    parts = ("trying the file: starting", "trying the file: loading", "trying the file: unloading")
    logged = [line for now, part in enumerate(parts) for line in lines.of({"m": Progress(part, 0.5)}, float(now))]
    assert logged == ["m: trying the file"]
    assert lines.of({"m": Progress(parts[-1], 0.5)}, 30.0) == ["m: trying the file: unloading, 50%"]


def logging_settings() -> list[tuple[int, bool, list[logging.Handler]]]:
    loggers = [logging.getLogger(name) for name in ("", ACCESS_LOGGER, "httpx", "mcp")]
    return [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]


def test_a_server_that_has_ended_leaves_logging_as_it_was() -> None:
    before = logging_settings()
    log = ServerLog()
    log.open(Server(access_log_format="json"))
    assert logging_settings() != before
    log.close()
    assert logging_settings() == before
