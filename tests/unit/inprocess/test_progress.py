"""Loads are shown in a terminal, in a notebook, or to a function of the program; elsewhere nothing is written."""

from __future__ import annotations

import asyncio
import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pyte
import pytest

from modelyard import LoadProgress
from modelyard.hub import Progress
from modelyard.inprocess.progress import ProgressDisplay, Shown, _notebook_bars, _terminal_bars

ID = "an-organisation/a-model-with-a-long-name-Q4_K_M"
WAIT_S = 20.0


class Loading:
    """Progress that a test moves on, and the work that ends with it."""

    def __init__(self, shown: Shown) -> None:
        self.progress = {"loaded-before": Progress("loading", 1.0)}
        self.display = ProgressDisplay(shown, lambda: self.progress)
        self.ended = asyncio.Event()

    async def work(self) -> str:
        await self.ended.wait()
        return "done"


async def reported(load: Loading, reports: list[LoadProgress], count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(reports) < count:  # noqa: ASYNC110 (nobody is told of a report but the function under test)
            await asyncio.sleep(0.01)


async def test_a_function_of_the_program_is_called_with_each_change() -> None:
    reports: list[LoadProgress] = []
    load = Loading(reports.append)
    waiting = asyncio.create_task(load.display.during(load.work()))
    await asyncio.sleep(0)
    load.progress["smol"] = Progress("downloading", 0.5)
    await reported(load, reports, 1)
    load.progress["smol"] = Progress("loading", 1.0)
    load.ended.set()
    assert await waiting == "done"
    assert reports == [LoadProgress("smol", "downloading", 0.5), LoadProgress("smol", "loading", 1.0)]


async def test_an_error_of_the_programs_function_ends_the_load() -> None:
    def fail(progress: LoadProgress) -> None:
        raise ZeroDivisionError

    load = Loading(fail)
    work = asyncio.ensure_future(load.work())
    waiting = asyncio.create_task(load.display.during(work))
    await asyncio.sleep(0)
    load.progress["smol"] = Progress("loading", 0.5)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(waiting, WAIT_S)
    assert work.cancelled()


async def test_a_model_that_is_loaded_is_waited_for_without_a_display() -> None:
    def fail(progress: LoadProgress) -> None:
        raise AssertionError

    load = Loading(fail)
    load.ended.set()
    assert await load.display.during(load.work(), lambda: True) == "done"


async def test_where_stderr_is_no_terminal_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    load = Loading(True)
    load.progress["smol"] = Progress("loading", 0.5)
    load.ended.set()
    await load.display.during(load.work())
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_shows_bars_that_cut_no_id_and_are_gone_at_the_end(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    screen = pyte.Screen(columns, 12)
    stream = pyte.Stream(screen)
    with _terminal_bars() as report:
        report(LoadProgress(ID, "quantising", 0.25))
        stream.feed(terminal.getvalue().replace("\n", "\r\n"))
        lines = [line.rstrip() for line in screen.display if line.strip()]
        terminal.truncate(0)
    stream.feed(terminal.getvalue().replace("\n", "\r\n"))
    assert "25%" in lines[0]
    assert "".join(line.partition(" ━")[0].strip() for line in lines) in (f"{ID}: quantising", f"{ID}:quantising")
    assert "".join(screen.display).strip() == ""


class Notebook:
    """IPython's display, as far as bars use it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
        shell = type("ZMQInteractiveShell", (), {})()
        vars(ipython).update(get_ipython=lambda: shell, display=display)
        vars(display).update(HTML=str, display=self.display)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, html: str, *, display_id: bool) -> Any:
        assert display_id
        self.shown.append(html)
        return SimpleNamespace(update=self.shown.append)


def test_a_notebook_shows_bars_without_widgets_and_clears_them(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    with _notebook_bars() as report:
        report(LoadProgress("<smol>", "loading", 0.25))
        report(LoadProgress("<smol>", "loading", 0.5))
    first, second, last = notebook.shown
    assert 'value="0.250"' in first
    assert "&lt;smol&gt;: loading" in second
    assert last == ""


async def test_a_load_in_a_notebook_is_shown_there(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(monkeypatch)
    load = Loading(True)
    waiting = asyncio.create_task(load.display.during(load.work()))
    await asyncio.sleep(0)
    load.progress["smol"] = Progress("converting", 0.5)
    load.ended.set()
    await waiting
    assert "smol: converting" in notebook.shown[0]
