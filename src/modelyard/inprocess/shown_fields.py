"""What ``help`` and the Tab key of a notebook show of requests: each field by name, and the whole description."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)


def fields_shown(requests: _Class) -> _Class:
    """Give the methods of a class signatures that name each field which they take as ``**fields``.

    A method that has a twin with ``_with_model`` takes the twin's docstring.
    """
    for name, method in vars(requests).items():
        if not isinstance(method, FunctionType) or name.startswith("_"):
            continue
        twin = vars(requests).get(f"{name}_with_model")
        if twin is not None:
            method.__doc__ = twin.__doc__
        signature = inspect.signature(method)
        parameters = [shown for each in signature.parameters.values() for shown in _parameters(each, method)]
        method.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return requests


def _parameters(parameter: inspect.Parameter, method: FunctionType) -> Iterator[inspect.Parameter]:
    named = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
    if named is None:
        yield parameter
        return
    types: dict[str, Any] = method.__globals__[named[1]].__annotations__
    for name, type_ in types.items():
        written = getattr(type_, "__forward_arg__", type_)
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=written)
