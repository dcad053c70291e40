"""Reads several answers at the same time, for the choices of one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

_Source = TypeVar("_Source")
_Piece = TypeVar("_Piece")


async def side_by_side(
    sources: Sequence[_Source], read: Callable[[_Source], Coroutine[Any, Any, _Piece | None]]
) -> AsyncGenerator[tuple[int, _Piece | None]]:
    """Yield the pieces of all sources as they arrive, each with the index of its source; None marks its end.

    Closing the generator cancels the reads.

    Args:
        sources: what is read.
        read: returns the next piece of a source; None: there is none any more.
    """
    if len(sources) == 1:
        while (only := await read(sources[0])) is not None:
            yield 0, only
        yield 0, None
        return
    reading = {index: asyncio.create_task(read(source)) for index, source in enumerate(sources)}
    try:
        while reading:
            await asyncio.wait(reading.values(), return_when=asyncio.FIRST_COMPLETED)
            for index, task in [(index, task) for index, task in reading.items() if task.done()]:
                if (piece := task.result()) is None:
                    del reading[index]
                else:
                    reading[index] = asyncio.create_task(read(sources[index]))
                yield index, piece
    finally:
        await cancel(reading.values())


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
