"""Prepares a model's files without a server, and shows the progress of downloads and conversions."""

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
from modelyard.yard.runtime.model_spec import plan_of


def prepare_visibly(config: Config, console: Console) -> ModelFiles:
    """Prepare the files of the only model of ``config``, and return them.

    Raises:
        UnusableModel: the files cannot be downloaded or converted.
    """
    stores = stores_of(config)
    plan = plan_of(config, config.models[0], stores, lambda _: True)
    for reason in plan.decision.reasons:
        console.print(reason, markup=False)
    with progress_bar(console) as show:
        return prepare(plan, stores, show)


@contextmanager
def progress_bar(console: Console) -> Iterator[OnProgress]:
    """Yield a function to report progress to, which draws a bar on a terminal."""
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
    """Let SIGTERM raise SystemExit within the context, so that the converter ends and its files are removed."""

    def exit_by_signal(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, exit_by_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
