"""The commands of the chat, and what a line that was sent means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from modelyard.cli.chat.attachments import first_path
from modelyard.cli.chat.lines import unquoted


@dataclass(frozen=True, slots=True)
class CommandHelp:
    """One command as ``/help`` lists it.

    Attributes:
        name: without the slash.
        argument: what follows it, "" for nothing.
        text: what it does.
        aliases: other names, most of them those of other chats.
    """

    name: str
    argument: str
    text: str
    aliases: tuple[str, ...] = ()


COMMANDS: Final = (
    CommandHelp("help", "", "List the commands and keys.", ("?", "h")),
    CommandHelp("bye", "", "Leave. So do Ctrl-D, and Ctrl-C twice.", ("exit", "quit", "q")),
    CommandHelp("clear", "", "Begin a new conversation; the system prompt stays.", ("reset", "new")),
    CommandHelp("system", "[TEXT|none]", "Show, set or remove the system prompt."),
    CommandHelp("set", "[NAME VALUE]", "Show or change the settings of answers; VALUE default resets one.", ("unset",)),
    CommandHelp("model", "[NAME]", "Show the model, or go on with another one."),
    CommandHelp("models", "", "List the models.", ("list", "ls")),
    CommandHelp("show", "[system|parameters]", "Show the model, the system prompt, or the settings.", ("info",)),
    CommandHelp("image", "FILE [TEXT]", "Attach an image to the message.", ("img",)),
    CommandHelp("audio", "FILE [TEXT]", "Attach a clip of sound to the message."),
    CommandHelp("file", "FILE [TEXT]", "Put the text of a file into the message.", ("read",)),
    CommandHelp("retry", "", "Answer the last message again.", ("regen", "regenerate")),
    CommandHelp("edit", "", "Change the last message and send it again."),
    CommandHelp("undo", "", "Remove the last message and its answer."),
    CommandHelp("save", "NAME", "Save the conversation; -f NAME overwrites another one."),
    CommandHelp("load", "[NAME]", "Go on with a saved conversation, or list them."),
    CommandHelp("export", "FILE", "Write the conversation to FILE.md or FILE.json; -f FILE overwrites."),
    CommandHelp("copy", "[code]", "Copy the last answer, or its last block of code, to the clipboard."),
    CommandHelp("tokens", "[TEXT]", "Count the tokens of the conversation, or of TEXT."),
    CommandHelp("tools", "[on|off]", "List the tools that the model may call, or switch them on or off."),
    CommandHelp("stats", "", "Show the speed of the last answer, and totals."),
)

_NAMES: Final = {name: command.name for command in COMMANDS for name in (command.name, *command.aliases)}

_LEAVING_WORDS: Final = frozenset({"exit", "quit", "bye"})


@dataclass(frozen=True, slots=True)
class Command:
    """A command. ``name`` is its main name, ``typed`` the name as it was typed."""

    name: str
    argument: str = ""
    typed: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """Text for the model."""

    text: str


@dataclass(frozen=True, slots=True)
class UnknownCommand:
    """A line that begins with a slash and is no command. ``nearest`` is the most similar one, if any."""

    typed: str
    nearest: str | None


Line = Command | Say | UnknownCommand | None


def parse_line(text: str, is_path: Callable[[str], bool]) -> Line:
    """Return what a line means; None: nothing.

    Args:
        text: what was typed, which may be several lines.
        is_path: whether a file of that name exists, so that a dropped path is no command.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if stripped.lower() in _LEAVING_WORDS:
        return Command("bye", typed=stripped)
    if stripped.startswith("//"):
        return Say(stripped[1:])
    if not stripped.startswith("/"):
        return Say(unquoted(text)) if unquoted(text).strip() else None
    word = stripped.split(None, 1)[0]
    argument = unquoted(stripped[len(word) :])
    name = _NAMES.get(word[1:].lower())
    if name is not None:
        return Command(name, argument, word)
    if is_path(first_path(stripped)[0]):
        return Say(stripped)
    close = get_close_matches(word[1:].lower(), _NAMES, n=1)
    return UnknownCommand(word, f"/{close[0]}" if close else None)
