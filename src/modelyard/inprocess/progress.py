"""Shows how models load: bars in a terminal or a notebook, or calls of the program's own function."""

from __future__ import annotations

import asyncio
import html
import importlib
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from modelyard.hub import Progress
from modelyard.system.printable import printable

_T = TypeVar("_T")

POLL_S = 0.1
"""How often progress is read."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the load of a model is.

    Attributes:
        model: id of the model.
        step: what is done now, such as "downloading", "converting" or "loading".
        fraction: the part of the step that is done, from 0 to 1.
    """

    model: str
    step: str
    fraction: float


OnLoadProgress = Callable[[LoadProgress], object]
"""Called when a load has come further."""

Shown = bool | OnLoadProgress
"""True: bars in a terminal or a notebook, and nothing elsewhere; False: nothing; or a function of the program's own."""


class ProgressDisplay:
    """Shows the loads that something waits for.

    Args:
        shown: where they are shown.
        read: returns the progress of all loads.
    """

    def __init__(self, shown: Shown, read: Callable[[], Mapping[str, Progress]]) -> None:
        self._shown, self._read = shown, read
        self._is_showing = False

    async def during(self, work: Awaitable[_T], is_loaded: Callable[[], bool] = bool) -> _T:
        """Wait for ``work``, and show the loads until it ends, or until ``is_loaded``.

        Cancelling the wait, or an exception of the program's function, cancels the work.
        """
        # One display at a time: two would draw over each other.
        display = None if self._is_showing or is_loaded() else _display(self._shown)
        if display is None:
            return await work
        working = asyncio.ensure_future(work)
        self._is_showing = True
        try:
            before = dict(self._read())
            with display as report:
                while not working.done() and not is_loaded():
                    before = self._report(before, report)
                    await asyncio.wait((working,), timeout=POLL_S)
                self._report(before, report)
        except BaseException:
            working.cancel()
            await asyncio.wait((working,))
            raise
        finally:
            self._is_showing = False
        return await working

    def _report(self, before: Mapping[str, Progress], report: OnLoadProgress) -> dict[str, Progress]:
        """Report what has changed; return the progress now."""
        now = dict(self._read())
        for model, progress in now.items():
            if before.get(model) != progress:
                report(LoadProgress(model, progress.step, progress.fraction))
        return now


def _display(shown: Shown) -> AbstractContextManager[OnLoadProgress] | None:
    """Return where progress is shown; None: nowhere."""
    if callable(shown):
        return nullcontext(shown)
    if not shown:
        return None
    if _is_notebook():
        return _notebook_bars()
    if sys.stderr is not None and sys.stderr.isatty():
        return _terminal_bars()
    return None


def _is_notebook() -> bool:
    # A notebook has imported IPython; a terminal of IPython has another shell.
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


@contextmanager
def _terminal_bars() -> Iterator[OnLoadProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    # An id is folded where the terminal is narrow, never cut.
    name = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
    columns = (name, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(load: LoadProgress) -> None:
            if load.model not in tasks:
                tasks[load.model] = bars.add_task("", total=1.0)
            description = f"{printable(load.model)}: {load.step}"
            bars.update(tasks[load.model], completed=load.fraction, description=description, refresh=True)

        yield report


@contextmanager
def _notebook_bars() -> Iterator[OnLoadProgress]:
    """Draw bars with IPython's display alone: widgets would need a package that may be missing."""
    notebook = importlib.import_module("IPython.display")

    handle: Any = None
    loads: dict[str, LoadProgress] = {}

    def report(load: LoadProgress) -> None:
        nonlocal handle
        loads[load.model] = load
        bars = notebook.HTML(_bars_html(loads.values()))
        if handle is None:
            handle = notebook.display(bars, display_id=True)
        else:
            handle.update(bars)

    try:
        yield report
    finally:
        if handle is not None:
            handle.update(notebook.HTML(""))


def _bars_html(loads: Any) -> str:
    return "".join(
        f"<div>{html.escape(f'{load.model}: {load.step}')} "
        f'<progress max="1" value="{load.fraction:.3f}"></progress> {load.fraction:.0%}</div>'
        for load in loads
    )
