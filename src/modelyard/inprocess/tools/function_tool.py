"""A function of a program as a tool."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from modelyard.errors import InvalidRequest
from modelyard.inprocess.tools.callables import routine_of, unwrapped
from modelyard.inprocess.tools.docstrings import read_docstring
from modelyard.inprocess.tools.parameters import Function, Parameters, read_parameters

DEFAULT_TIMEOUT_S: Final = 30.0
"""How long a call of a function may take, unless its tool says otherwise. As for calls of MCP servers."""

MAX_TIMEOUT_S: Final = 3600.0
"""Upper bound of ``timeout_s``, as of every call of a tool."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class FunctionTool:
    """A function that models call. ``with_tools`` and ``tools=`` also take the function itself.

    Its parameters become a JSON schema by their annotations, their descriptions come from the docstring (in the style
    of Google, NumPy or reStructuredText), from ``Annotated[int, "how many"]`` or from pydantic's ``Field``. Arguments
    are checked and converted before the call. What it returns becomes text: a text as it is, None as "", everything
    else as JSON. An exception becomes a result that the model reads: its type and its message.

    A function with ``async def`` runs on the event loop of the model, and must not block it; others run on a thread.

    Args:
        function: takes arguments by name, and no ``*args`` or ``**kwargs``. Methods, objects that can be called, and
            ``functools.partial`` will do; arguments that a partial gives are hidden from the model.
        name: 1 to 64 letters, digits, ``_`` and ``-``; None: the name of the function.
        description: for the model; None: the docstring up to its first section.
        timeout_s: after so many seconds a call has failed, for the model; a thread runs on until the function returns.
        needs_approval: whether each call waits for its approval; see ``with_tool_approval``.

    Attributes:
        function, name, description, timeout_s, needs_approval: as above.
        parameters: JSON schema of the arguments.

    Raises:
        InvalidRequest: no such tool can be made of it; the error says why.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        needs_approval: bool = False,
    ) -> None:
        self.name = _checked_name(function, name)
        _check_function(function, self.name)
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= MAX_TIMEOUT_S or math.isnan(timeout_s):
            raise InvalidRequest(
                f"The tool '{self.name}' needs a timeout_s above 0 and up to {MAX_TIMEOUT_S:.0f}, not {timeout_s!r}.",
                "tools",
            )
        documentation = read_docstring(_docstring(function))
        self.function: Function = function
        self.description = documentation.description if description is None else description
        self.timeout_s, self.needs_approval = float(timeout_s), needs_approval
        self.checked_parameters: Parameters = read_parameters(function, self.name, documentation.parameters)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments."""
        return self.checked_parameters.schema

    @property
    def definition(self) -> dict[str, Any]:
        """The tool in OpenAI's shape."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    def __repr__(self) -> str:
        return f"FunctionTool({self.name})"


def tool_name(function: object) -> str:
    """Return the name of the tool that ``function``, or a FunctionTool, is.

    Raises:
        InvalidRequest: it has no name that a tool can have.
    """
    return function.name if isinstance(function, FunctionTool) else _checked_name(function, None)


def to_function_tool(function: object) -> FunctionTool:
    """Return ``function``, or a FunctionTool, as a FunctionTool.

    Raises:
        InvalidRequest: no tool can be made of it.
    """
    if isinstance(function, FunctionTool):
        return function
    return FunctionTool(cast(Callable[..., Any], function))


def _checked_name(function: object, given: str | None) -> str:
    if not callable(function) or isinstance(function, type):
        what = "a class" if isinstance(function, type) else f"{function!r} ({type(function).__name__})"
        raise InvalidRequest(f"A tool is a function, or an object that can be called; this is {what}.", "tools")
    name = _own_name(function) if given is None else given
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"'{name}' cannot be the name of a tool, which has 1 to 64 letters, digits, '_' and '-'. Name it: "
            "FunctionTool(function, name='…').",
            "tools",
        )
    return name


def _own_name(function: Callable[..., Any]) -> str:
    function = unwrapped(function)
    return getattr(function, "__name__", type(function).__name__)


def _docstring(function: Callable[..., Any]) -> str | None:
    function = unwrapped(function)
    if inspect.isroutine(function):
        return inspect.getdoc(function)
    called = inspect.getdoc(routine_of(function))
    # Every class that can be called has this docstring, unless its method has one of its own.
    return inspect.getdoc(function) if called in (None, "Call self as a function.") else called


def _check_function(function: Callable[..., Any], name: str) -> None:
    called = routine_of(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise InvalidRequest(
            f"The tool '{name}' is a generator, which has no single result. Return a text or a list.", "tools"
        )
