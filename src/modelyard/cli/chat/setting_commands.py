"""``/set``: settings of answers, and switches of the chat, in the words of ``ollama run`` and of this chat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from modelyard.cli.chat.commands import Command
from modelyard.cli.chat.session import Chat, Switches
from modelyard.cli.chat.settings import SETTINGS, BadSetting, setting_of, shown, value_of
from modelyard.errors import InvalidRequest

_NO_SYSTEM: Final = ("", "none", '""', "''", "default")
_EFFORTS: Final = ("minimal", "low", "medium", "high", "max")


def set_command(chat: Chat, command: Command) -> None:
    """Show all settings, or change one.

    Raises:
        InvalidRequest: the setting does not exist, or cannot have the value.
    """
    words = command.argument.split(None, 1)
    # Ollama's grammar: /set parameter NAME VALUE.
    if words and words[0].lower() in ("parameter", "param"):
        words = words[1].split(None, 1) if len(words) == 2 else []
    if not words:
        _show(chat)
        return
    name, value = words[0].lower(), words[1].strip() if len(words) > 1 else ""
    if command.typed.lower() == "/unset":
        value = "default"
    if name == "system":
        set_system(chat, value.strip('"').strip())
    elif name in ("history", "nohistory"):
        _set_history(chat, name, value)
    elif name in _SWITCHES:
        chat.terminal.note(_set_switch(chat, name, value))
    else:
        _set_value(chat, words[0], value)


def set_system(chat: Chat, text: str) -> None:
    """Set the system prompt, or remove it, as the words say that stand for none."""
    removes = text.lower() in _NO_SYSTEM
    chat.conversation = replace(chat.conversation, system=None if removes else text)
    chat.used_tokens = None
    if removes:
        chat.terminal.note("There is no system prompt now.")
    elif chat.model.can_chat:
        chat.terminal.note("The system prompt is set.")
    else:
        chat.terminal.note(f"The system prompt is set, but {chat.model.id} has no chat template and does not get it.")


def _set_value(chat: Chat, name: str, text: str) -> None:
    try:
        setting = setting_of(name)
    except BadSetting as error:
        raise InvalidRequest(str(error)) from None
    settings = dict(chat.switches.settings)
    if not text:
        _note_value(chat, setting.name)
        return
    if text.lower() == "default":
        settings.pop(setting.name, None)
    else:
        try:
            settings[setting.name] = value_of(setting, text)
        except BadSetting as error:
            raise InvalidRequest(f"{setting.name} {error}.") from None
    chat.switches = replace(chat.switches, settings=settings)
    _note_value(chat, setting.name)


def _note_value(chat: Chat, name: str) -> None:
    settings = chat.switches.settings
    chat.terminal.note(f"{name}: {shown(settings[name]) if name in settings else 'the default of the model'}")


def _set_switch(chat: Chat, name: str, value: str) -> str:
    """Change a switch, and return what is said about it."""
    if name == "think" and value.lower() in _EFFORTS:
        settings = {**chat.switches.settings, "reasoning_effort": value.lower()}
        chat.switches = replace(chat.switches, thinks=True, settings=settings)
        return f"The model thinks, with {value.lower()} effort."
    if name == "format":
        if value.lower() not in ("json", "", "text"):
            raise InvalidRequest(f"format is json or text, not '{value}'.")
        name = "noformat" if value.lower() == "text" else name
    elif value.lower() in ("off", "false", "no"):
        if f"no{name}" not in _SWITCHES:
            raise InvalidRequest(f"/set {name} takes no value.")
        name = f"no{name}"
    elif value.lower() not in ("", "on", "true", "yes"):
        raise InvalidRequest(f"/set {name} takes no value, or on or off, not '{value}'.")
    change, text = _SWITCHES[name]
    chat.switches = change(chat.switches)
    if name.endswith("markdown"):
        chat.terminal.shows_markdown = name == "markdown" and chat.terminal.has_styles
        if name == "markdown" and not chat.terminal.has_styles:
            raise InvalidRequest("Markdown is not shown on this terminal: it has no styles, or NO_COLOR is set.")
    return text


def _set_history(chat: Chat, name: str, value: str) -> None:
    keeps = name == "history" and value.lower() not in ("off", "false", "no")
    if chat.history is None:
        raise InvalidRequest("The history of this prompt is not kept: MODELYARD_NO_HISTORY, or no file can be written.")
    chat.history.is_kept = keeps
    chat.terminal.note("Messages are kept for later chats." if keeps else "Messages are not kept from now on.")


def _show(chat: Chat) -> None:
    switches, settings = chat.switches, chat.switches.settings
    thinks = {None: "as the model does", True: "on", False: "off"}[switches.thinks]
    lines = [
        f"think/nothink: {thinks}",
        f"hide-thinking/show-thinking: {'hidden' if switches.hides_reasoning else 'shown'}",
        f"verbose/quiet: {'verbose' if switches.is_verbose else 'quiet'}",
        f"markdown/nomarkdown: {'on' if chat.terminal.shows_markdown else 'off'}",
        f"format json/noformat: {'json' if switches.answers_json else 'text'}",
        f"history/nohistory: {'kept' if chat.history is not None and chat.history.is_kept else 'not kept'}",
        "",
        *(f"{setting.name}: {shown(settings[setting.name])}" for setting in SETTINGS if setting.name in settings),
    ]
    rest = [setting.name for setting in SETTINGS if setting.name not in settings]
    chat.terminal.note("\n".join([*lines, f"by the model's default: {', '.join(rest)}"]))


_Change = Callable[[Switches], Switches]

_HIDE: Final = (lambda switches: replace(switches, hides_reasoning=True), "Only the time of the reasoning is shown.")
_SHOW: Final = (lambda switches: replace(switches, hides_reasoning=False), "The reasoning is shown.")

_SWITCHES: Final[Mapping[str, tuple[_Change, str]]] = MappingProxyType(
    {
        "think": (lambda switches: replace(switches, thinks=True), "The model thinks before it answers, if it can."),
        "nothink": (lambda switches: replace(switches, thinks=False), "The model answers without thinking, if it can."),
        "hide-thinking": _HIDE,
        "hidethinking": _HIDE,
        "show-thinking": _SHOW,
        "showthinking": _SHOW,
        "verbose": (lambda switches: replace(switches, is_verbose=True), "The speed is shown after each answer."),
        "quiet": (lambda switches: replace(switches, is_verbose=False), "The speed is not shown."),
        "format": (lambda switches: replace(switches, answers_json=True), "Answers are JSON objects."),
        "noformat": (lambda switches: replace(switches, answers_json=False), "Answers are text."),
        "markdown": (lambda switches: switches, "Answers are shown as Markdown."),
        "nomarkdown": (lambda switches: switches, "Answers are shown as they are."),
    }
)

SET_WORDS: Final = (*(setting.name for setting in SETTINGS), *_SWITCHES, "system", "history", "nohistory")
"""What can follow ``/set``."""
