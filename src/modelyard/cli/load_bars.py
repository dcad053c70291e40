"""Bars of the models that are being loaded, in this process or by a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from modelyard.system.printable import printable

# Terminals that are narrower have no room for a bar beside the id of a model.
_MIN_BAR_COLUMNS: Final = 60


class ShownStep(Protocol):
    """What is done to a model, such as "loading", and the part of that which is done, 0 to 1; None: not known."""

    @property
    def step(self) -> str: ...  # noqa: D102
    @property
    def fraction(self) -> float | None: ...  # noqa: D102


class LoadBars:
    """The bars of the models that are being loaded, a line each. Nothing is drawn where the console is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, steps: Mapping[str, ShownStep]) -> None:
        """Show ``steps``, by model; a model that is not among them has no bar any more."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            return
        if not steps:
            self.close()
            return
        if self._bars is None:
            self._bars = self._new_bars()
            self._bars.start()
        for model in self._tasks.keys() - steps.keys():
            self._bars.remove_task(self._tasks.pop(model))
        for model, step in steps.items():
            text = f"{step.step.capitalize()} {printable(model)}"
            if model not in self._tasks:
                self._tasks[model] = self._bars.add_task(text, total=None)
            total = None if step.fraction is None else 1.0
            self._bars.update(self._tasks[model], total=total, completed=step.fraction, description=text)

    def close(self) -> None:
        """Remove all bars."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks.clear()

    def _new_bars(self) -> Progress:
        # An id is folded where it does not fit, and never cut.
        text = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
        bar = [BarColumn(bar_width=30)] if self._console.width >= _MIN_BAR_COLUMNS else []
        columns = (text, *bar, TaskProgressColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._console, transient=True)
