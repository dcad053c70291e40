"""Commands one of whose parameters stands for many options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any


def with_options(
    command: Callable[..., None],
    name: str,
    options: Sequence[inspect.Parameter],
    gathered: Callable[[Mapping[str, Any]], Any],
) -> Callable[..., None]:
    """Return ``command`` with ``options`` in place of its parameter ``name``: typer makes an option of each parameter.

    Args:
        command: the command.
        name: of its parameter.
        options: parameters by keyword, with a default.
        gathered: returns the value of the parameter for the values of the options, by name.
    """

    @wraps(command)
    def run(**values: Any) -> None:
        given = {option.name: values.pop(option.name) for option in options}
        command(**values, **{name: gathered(given)})

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == name:
            parameters += options
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
