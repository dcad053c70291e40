"""Warnings that point at the line of the program which called the package, also through the thread of an event loop."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

# The package, and what runs coroutines and threads between a program and the package.
_PASSED_OVER: Final = frozenset({"modelyard", "asyncio", "concurrent", "contextlib", "threading", "uvloop"})


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """The line of a program that called the package.

    Attributes:
        filename, line: of the source.
        scope: global variables of its module, which hold the warnings that were shown there.
    """

    filename: str
    line: int
    scope: dict[str, Any]


_CALLER: ContextVar[Caller | None] = ContextVar("modelyard_caller", default=None)


@contextmanager
def caller_kept() -> Iterator[None]:
    """Keep the caller for work that another thread does, which is submitted in this context."""
    token = _CALLER.set(_nearest())
    try:
        yield
    finally:
        _CALLER.reset(token)


def warn(message: str) -> None:
    """Warn of what a program has passed, at the line that passed it."""
    caller = _nearest() or _CALLER.get()
    if caller is None:
        # A task without the program's frames.
        warnings.warn(message, stacklevel=2)
        return
    warnings.warn_explicit(
        message,
        UserWarning,
        caller.filename,
        caller.line,
        module=str(caller.scope.get("__name__", "")) or None,
        registry=caller.scope.setdefault("__warningregistry__", {}),
    )


def _nearest() -> Caller | None:
    """Return the innermost frame of this thread that is none of the package's; None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_passed_over(frame):
        frame = frame.f_back
    return None if frame is None else Caller(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


def _is_passed_over(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _PASSED_OVER
