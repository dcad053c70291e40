"""Shows the progress of loading models: bars on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from modelyard.cli.load_bars import LoadBars
from modelyard.hub import Progress as Step
from modelyard.inprocess.async_model import AsyncModel
from modelyard.yard.residency.state import LoadState
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

_REFRESH_S: Final = 0.1

# Between two lines of the log about one long step, where there are no bars.
_PAUSE_S: Final = 15.0

# Steps that the log has lines of its own about, or that are over at once.
_WITHOUT_LINE: Final = frozenset({"loading", "reading files"})

_COMING: Final = frozenset({LoadState.SIZING, LoadState.LOADING})


class StepLines:
    """Lines of the log about the steps before a load, such as a download."""

    def __init__(self, pause_s: float = _PAUSE_S) -> None:
        self._pause_s = pause_s
        self._last: dict[str, tuple[str, float]] = {}

    def of(self, steps: Mapping[str, Step], now: float) -> list[str]:
        """Return the lines that are due: one at the start of a step, and one now and then while it takes."""
        lines = []
        self._last = {model: last for model, last in self._last.items() if model in steps}
        for model, step in steps.items():
            last, logged_at = self._last.get(model, ("", 0.0))
            if step.step in _WITHOUT_LINE:
                continue
            # The parts of a step, as in "trying the file: loading", are for bars: each takes a moment.
            name, _, _ = step.step.partition(":")
            if name != last:
                lines.append(f"{model}: {name}")
            elif now >= logged_at + self._pause_s:
                lines.append(f"{model}: {step.step}, {step.fraction:.0%}")
            else:
                continue
            self._last[model] = (name, now)
        return lines


async def start_visibly(
    model: AsyncModel, console: Console, drawing: AbstractContextManager[None] | None = None
) -> None:
    """Start ``model`` and show the progress of its loads.

    Args:
        model: the models.
        console: where bars are drawn.
        drawing: entered while they are.

    Raises:
        ConfigError, ModelLoadFailed: see AsyncModel.start.
    """
    starting = asyncio.create_task(model.start())
    bars, lines = LoadBars(console), StepLines()
    try:
        with drawing or nullcontext():
            while not starting.done():
                steps = model.load_progress()
                bars.show(steps)
                _log(lines.of(steps, time.monotonic()))
                await asyncio.wait((starting,), timeout=_REFRESH_S)
            bars.close()
        await starting
    finally:
        bars.close()
        starting.cancel()


@dataclass(frozen=True, slots=True)
class _Connecting:
    """The line of an MCP server, whose progress is not known."""

    step: str = "connecting to"
    fraction: float | None = None


async def connect_visibly(model: AsyncModel, console: Console, limit_s: float) -> None:
    """Wait for the MCP servers that are being connected, for ``limit_s`` at most, with a line for each."""
    connecting, bars = asyncio.create_task(model.wait_for_mcp_servers(limit_s)), LoadBars(console)
    try:
        while not connecting.done():
            names = [server.name for server in model.mcp_servers if server.state == "connecting"]
            bars.show(dict.fromkeys(names, _Connecting()))
            await asyncio.wait((connecting,), timeout=_REFRESH_S)
        await connecting
    finally:
        bars.close()
        connecting.cancel()


async def follow_loads(yard: Yard, console: Console, drawing: AbstractContextManager[None]) -> None:
    """Show the progress of all loads from now on, until the yard dismisses its observers."""
    bars, lines, steps = LoadBars(console), StepLines(), dict[str, Step]()
    try:
        with yard.monitor.observer() as observer, drawing:
            async for change in observer:
                if change.load_state in _COMING:
                    steps[change.model] = Step(change.step or "loading", change.progress or 0.0)
                elif change.model in steps:
                    del steps[change.model]
                else:
                    continue
                bars.show(steps)
                _log(lines.of(steps, time.monotonic()))
    finally:
        bars.close()


def _log(lines: list[str]) -> None:
    for line in lines:
        logger.info("%s", line)
