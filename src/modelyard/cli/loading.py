"""Shows models being loaded: bars on a terminal, lines in a log."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from modelyard.yard.yard import Yard

_REFRESH_S = 0.1


async def start_visibly(yard: Yard, console: Console) -> None:
    """Start ``yard`` and show how its loads go on.

    Raises:
        ConfigError, ModelLoadFailed: as Yard.start.
    """
    starting = asyncio.create_task(yard.start())
    try:
        if console.is_terminal:
            await _draw_bars(yard, console, starting)
        await starting
    finally:
        starting.cancel()


async def _draw_bars(yard: Yard, console: Console, starting: asyncio.Task[None]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bars = {}
        while not starting.done():
            for model, at in yard.load_progress().items():
                if model not in bars:
                    bars[model] = progress.add_task(model, total=1.0)
                described = f"{at.step.capitalize()} {model}"
                progress.update(bars[model], completed=at.fraction, description=described)
            await asyncio.wait((starting,), timeout=_REFRESH_S)
