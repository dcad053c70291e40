"""What a function of a program is: its own code may lie behind partials and behind the class of an object."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function within partials."""
    while isinstance(function, partial):
        function = function.func
    return function


def routine_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function or method that a call runs: within partials, and of an object that can be called."""
    function = unwrapped(function)
    return function if inspect.isroutine(function) else type(function).__call__


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calls of ``function`` are awaited."""
    return inspect.iscoroutinefunction(routine_of(function))
