"""The settings of answers as options of a command: one for each of ``SETTINGS``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Final

import typer

from modelyard.cli.chat.settings import SETTINGS, BadSetting, Setting, texts_value, value_of
from modelyard.cli.usage import UsageError

_EXPANDED: Final = "settings"
_PANEL: Final = "Answers"


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with a parameter ``settings``, a mapping of the values that are given, by name.

    typer makes one command-line option of each parameter, so that parameter is replaced by one for each setting.
    """

    @wraps(command)
    def run(**values: Any) -> None:
        given = {setting.name: values.pop(setting.name) for setting in SETTINGS}
        command(**values, **{_EXPANDED: {name: value for name, value in given.items() if value not in (None, [])}})

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == _EXPANDED:
            parameters += [_parameter(setting) for setting in SETTINGS]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(setting: Setting) -> inspect.Parameter:
    is_many = setting.kind == "texts"
    option = typer.Option(
        setting.option,
        metavar=setting.metavar,
        help=setting.text,
        rich_help_panel=_PANEL,
        callback=_checked(setting),
        show_default=False,
    )
    kind = list[str] | None if is_many else str | None
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _checked(setting: Setting) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        if given is None or given == []:
            return None
        try:
            return texts_value(setting, given) if setting.kind == "texts" else value_of(setting, given)
        except BadSetting as error:
            raise UsageError(f"{setting.option} {error}.") from None

    return check
