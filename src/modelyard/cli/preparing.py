"""Shows a model's files being downloaded and converted, where no server waits for them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from modelyard.config import Config
from modelyard.hub import ModelFiles, OnProgress, prepare
from modelyard.hub import Progress as Step
from modelyard.yard.from_config import stores_of
from modelyard.yard.runtime.engine_factory import plan_of


def prepare_visibly(config: Config, console: Console) -> ModelFiles:
    """The files of the only model of ``config``, ready to be loaded.

    Raises:
        UnusableModel: they cannot be had, or not be converted.
    """
    stores = stores_of(config)
    plan = plan_of(config, config.models[0], stores, lambda _: True)
    for reason in plan.decision.reasons:
        console.print(reason, markup=False)
    with shown(console) as show:
        return prepare(plan, stores, show)


@contextmanager
def shown(console: Console) -> Iterator[OnProgress]:
    """Something to report progress to, which is a bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("Preparing", total=1.0)

        def show(step: Step) -> bool:
            bars.update(bar, description=step.step.capitalize(), completed=step.fraction)
            return True

        with _terminable():
            yield show


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: the converter goes too, and what is half made."""

    def end(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
