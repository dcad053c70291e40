"""The prompt: editing, history, pasted text, several lines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.completion import Completer
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.shortcuts import CompleteStyle

from modelyard.cli.chat.lines import continues, without_continuation

PROMPT = ">>> "
_CONTINUATION = "... "


class Prompt(Protocol):
    """Asks the user for a message or a command."""

    def ask(self, placeholder: str, default: str = "") -> str:
        """Return what was typed.

        Args:
            placeholder: shown while nothing is typed.
            default: what can be edited at first.

        Raises:
            EOFError: Ctrl-D, or the input has ended.
            KeyboardInterrupt: Ctrl-C at an empty prompt.
        """


class TerminalPrompt:
    """The prompt on a terminal.

    Args:
        history: the messages of this and earlier chats.
        completer: completes at the tab key.
    """

    def __init__(self, history: History, completer: Completer) -> None:
        # Where the answers go to a file, the prompt stays on the terminal.
        stream = sys.stdout if sys.stdout.isatty() else sys.stderr
        self._session: PromptSession[str] = PromptSession(
            FormattedText([("bold", PROMPT)]),
            history=history,
            completer=completer,
            complete_style=CompleteStyle.READLINE_LIKE,
            complete_while_typing=False,
            multiline=True,
            prompt_continuation=lambda _width, _line, is_soft: "" if is_soft else _CONTINUATION,
            key_bindings=_key_bindings(),
            enable_open_in_editor=True,
            input=create_input(sys.stdin),
            output=create_output(stream),
        )

    def ask(self, placeholder: str, default: str = "") -> str:
        """Return what was typed; see ``Prompt.ask``."""
        # Log lines that come meanwhile are printed above the prompt.
        with patch_stdout(raw=True):
            return self._session.prompt(default=default, placeholder=lambda: _hint(placeholder))


class PlainPrompt:
    """Lines of an input that is no terminal with keys."""

    def __init__(self, read_line: Callable[[str], str] = input) -> None:
        self._read_line = read_line

    def ask(self, placeholder: str, default: str = "") -> str:  # noqa: ARG002
        """Return the next message, whose lines go on after triple quotes or a backslash; see ``Prompt.ask``."""
        # Another program that writes the lines needs no prompt among the answers.
        is_typed = sys.stdin.isatty()
        text = self._read_line(PROMPT if is_typed else "")
        while continues(text):
            text = without_continuation(text) if text.endswith("\\") else text + "\n"
            text += self._read_line(_CONTINUATION if is_typed else "")
        return text


def _hint(placeholder: str) -> FormattedText:
    """Return the placeholder, which does not stay on the screen when the prompt is left."""
    return FormattedText([] if get_app().is_done else [("fg:ansibrightblack", placeholder)])


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()
    is_typing = has_focus(DEFAULT_BUFFER)

    # A line that was typed during an answer ends with the line feed that the terminal made of its Enter.
    @bindings.add("enter", filter=is_typing)
    @bindings.add("c-j", filter=is_typing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if not continues(buffer.text):
            buffer.validate_and_handle()
        elif buffer.text.endswith("\\"):
            buffer.text = without_continuation(buffer.text)
            buffer.cursor_position = len(buffer.text)
        else:
            buffer.insert_text("\n")

    @bindings.add("escape", "enter", filter=is_typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c", filter=is_typing)
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            get_app().exit(exception=KeyboardInterrupt(), style="class:aborting")

    return bindings
