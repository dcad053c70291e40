"""Shows the progress of loading models as bars on a terminal."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from modelyard.inprocess.async_model import AsyncModel

_REFRESH_S = 0.1


async def start_visibly(model: AsyncModel, console: Console) -> None:
    """Start ``model`` and show the progress of its loads.

    Raises:
        ConfigError, ModelLoadFailed: see AsyncModel.start.
    """
    starting = asyncio.create_task(model.start())
    try:
        if console.is_terminal:
            await _draw_bars(model, console, starting)
        await starting
    finally:
        starting.cancel()


async def _draw_bars(model: AsyncModel, console: Console, starting: asyncio.Task[None]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bars = {}
        while not starting.done():
            for name, load in model.load_progress().items():
                if name not in bars:
                    bars[name] = progress.add_task(name, total=1.0)
                progress.update(bars[name], completed=load.fraction, description=f"{load.step.capitalize()} {name}")
            await asyncio.wait((starting,), timeout=_REFRESH_S)
