"""Begins a chat in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from prompt_toolkit.history import History
from rich.text import Text

from modelyard.cli.chat.completion import ChatCompleter
from modelyard.cli.chat.connection import Connection, own_connection
from modelyard.cli.chat.conversation import Attachment, Conversation
from modelyard.cli.chat.loop import converse
from modelyard.cli.chat.prompt import PlainPrompt, Prompt, TerminalPrompt
from modelyard.cli.chat.session import Chat, Switches
from modelyard.cli.chat.setting_commands import SET_WORDS
from modelyard.cli.chat.stored import PromptHistory, SavedConversations, prompt_history, state_folder
from modelyard.cli.chat.terminal import Terminal
from modelyard.cli.chat.word_wrap import printable

if TYPE_CHECKING:
    from modelyard.config import Config


def chat_on(
    connection: Connection,
    terminal: Terminal,
    switches: Switches,
    system: str | None = None,
    attachments: Sequence[Attachment] = (),
) -> None:
    """Hold a chat until the user leaves.

    Args:
        connection: where the models are.
        terminal: where the chat is held.
        switches: settings at first.
        system: system prompt at first.
        attachments: what goes with the first message.

    Raises:
        ModelyardError: the model cannot be used.
    """
    history = prompt_history(os.environ)
    models = connection.client.models()
    model = connection.client.model(connection.model)
    chat = Chat(
        connection.client,
        terminal,
        SavedConversations(state_folder(os.environ) / "conversations"),
        history if isinstance(history, PromptHistory) else None,
        model,
        switches,
        Conversation(system),
        [each.id for each in models],
        list(attachments),
    )
    # An id is never broken over lines: it is there to be copied.
    terminal.notes.print(Text.assemble((printable(model.id), "bold"), " ", (connection.where, "dim")), soft_wrap=True)
    with terminal.keyboard.unshown() if terminal.keyboard else nullcontext():
        chat.use(model)
        for attachment in attachments:
            terminal.note(f"'{attachment.name}' goes with the first message.")
        converse(chat, _prompt(chat, history))


def _prompt(chat: Chat, history: History) -> Prompt:
    if not sys.stdin.isatty() or not (sys.stdout.isatty() or sys.stderr.isatty()):
        return PlainPrompt()
    words = {
        "model": lambda: chat.model_ids,
        "set": lambda: SET_WORDS,
        "load": chat.saved.names,
        "save": chat.saved.names,
        "copy": lambda: ("code",),
        "tools": lambda: ("on", "off"),
    }
    return TerminalPrompt(history, ChatCompleter(words))


def chat_with(config: Config) -> None:
    """Hold a chat with the default model of a configuration, else its first, in this process.

    Raises:
        ConfigError, ModelLoadFailed: see AsyncModel.start.
    """
    from modelyard.config import default_model

    terminal = Terminal(os.environ)
    with own_connection(config, default_model(config) or config.models[0].id, terminal.notes) as connection:
        chat_on(connection, terminal, Switches())
