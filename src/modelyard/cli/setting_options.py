"""The settings of answers as options of a command: one for each of ``SETTINGS``."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any, Final

import typer

from modelyard.cli.chat.settings import SETTINGS, BadSetting, Setting, texts_value, value_of
from modelyard.cli.grouped_options import with_options
from modelyard.cli.usage import UsageError

_PANEL: Final = "Answers"


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with a parameter ``settings``, a mapping of the values that are given, by name."""
    return with_options(
        command,
        "settings",
        [_parameter(setting) for setting in SETTINGS],
        lambda given: {name: value for name, value in given.items() if value not in (None, [])},
    )


def _parameter(setting: Setting) -> Parameter:
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
    return Parameter(setting.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _checked(setting: Setting) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        if given is None or given == []:
            return None
        try:
            return texts_value(setting, given) if setting.kind == "texts" else value_of(setting, given)
        except BadSetting as error:
            raise UsageError(f"{setting.option} {error}.") from None

    return check
