"""Calls of functions whose exceptions are values: a ``SystemExit`` of a tool must not end an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Raised:
    """A function has raised this exception."""

    exception: BaseException


def caught(function: Callable[[], _T]) -> _T | Raised:
    """Return what ``function`` returns or raises."""
    try:
        return function()
    except BaseException as exception:  # noqa: BLE001 (returned, with SystemExit and KeyboardInterrupt)
        return Raised(exception)


async def caught_async(begin: Callable[[], Awaitable[_T]]) -> _T | Raised:
    """Return what the awaitable that ``begin`` makes returns or raises, also ``CancelledError``."""
    try:
        return await begin()
    except BaseException as exception:  # noqa: BLE001 (returned, with SystemExit and KeyboardInterrupt)
        return Raised(exception)
