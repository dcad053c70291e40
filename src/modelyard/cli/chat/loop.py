"""The loop of a chat: asks for lines until the user leaves, and does what each one says."""

from __future__ import annotations

import os
from typing import Final

from modelyard.cli.chat.chat_commands import Leave, run_command
from modelyard.cli.chat.commands import Command, Say, UnknownCommand, parse_line
from modelyard.cli.chat.prompt import Prompt
from modelyard.cli.chat.session import Chat
from modelyard.errors import ModelyardError

_MESSAGE_HINT: Final = "Send a message (/? for help)"
_TEXT_HINT: Final = "Text to go on with (/? for help)"


def converse(chat: Chat, prompt: Prompt) -> None:
    """Ask and answer until the user leaves."""
    is_leaving = False
    while True:
        default, chat.prefill = chat.prefill, ""
        try:
            text = prompt.ask(_MESSAGE_HINT if chat.model.can_chat else _TEXT_HINT, default)
        except EOFError:
            return
        except KeyboardInterrupt:
            if is_leaving:
                return
            is_leaving, chat.is_editing = True, False
            chat.terminal.note("Ctrl-C again, Ctrl-D or /bye leaves.")
            continue
        is_leaving = False
        try:
            obey(chat, text)
        except Leave as leave:
            if leave.note:
                chat.terminal.note(leave.note)
            return
        except ModelyardError as error:
            chat.terminal.error(str(error))
        except KeyboardInterrupt:
            chat.terminal.note("(stopped)")


def obey(chat: Chat, text: str) -> None:
    """Do what a line says.

    Raises:
        Leave: it ends the chat.
        ModelyardError: it failed; nothing is lost.
    """
    is_editing, chat.is_editing = chat.is_editing, False
    match parse_line(text, os.path.isfile):
        case Command() as command:
            run_command(chat, command)
        case UnknownCommand(typed, nearest):
            hint = f"Did you mean {nearest}?" if nearest else "/? lists the commands."
            chat.terminal.error(f"There is no command {typed}. {hint} (/{typed} sends it as text.)")
        case Say(said):
            if is_editing and chat.unanswered is None:
                chat.cut(chat.conversation.before_last_question())
            chat.say(said)
        case None:
            if chat.attachments or chat.texts:
                chat.say("")
            elif not chat.model.can_chat and chat.conversation.turns:
                chat.answer()
