"""What each command of the chat does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Final

from rich.padding import Padding
from rich.table import Table

from modelyard.cli.chat.attachments import MediaKind, first_path, read_media, read_text
from modelyard.cli.chat.client import ModelEntry
from modelyard.cli.chat.commands import COMMANDS, Command
from modelyard.cli.chat.requests import tokens_request
from modelyard.cli.chat.session import Chat
from modelyard.cli.chat.setting_commands import set_command, set_system
from modelyard.cli.chat.statistics import speed_line
from modelyard.cli.chat.tool_commands import tools_command
from modelyard.cli.chat.transcripts import EXPORTS, UnreadableConversation, from_saved, last_code, to_saved
from modelyard.cli.chat.word_wrap import printable
from modelyard.errors import InvalidRequest
from modelyard.system.quantities import size_text

_KEYS: Final = (
    ("Enter", "send"),
    ("\\ then Enter, Alt-Enter", "begin another line"),
    ('"""', "begin and end a text of several lines"),
    ("Up, Down, Ctrl-R", "earlier messages"),
    ("Tab", "complete commands, models and files"),
    ("Ctrl-X Ctrl-E", "edit the message in $EDITOR"),
    ("Ctrl-C", "stop an answer; twice at the prompt: leave"),
    ("Ctrl-D", "leave"),
)

# Below this width, tables become lists.
_MIN_TABLE_WIDTH: Final = 64


class Leave(Exception):
    """The user leaves.

    Attributes:
        note: what is said about it.
    """

    def __init__(self, note: str = "") -> None:
        super().__init__(note)
        self.note = note


def run_command(chat: Chat, command: Command) -> None:
    """Run a command.

    Raises:
        Leave: it ends the chat.
        ModelyardError: it failed; nothing has changed.
    """
    if command.argument and command.name in _WITHOUT_ARGUMENT:
        raise InvalidRequest(f"{command.typed} takes no argument, such as '{command.argument[:40]}'.")
    _RUN[command.name](chat, command)


def _help(chat: Chat, _: Command) -> None:
    is_wide = chat.terminal.notes.width >= _MIN_TABLE_WIDTH
    rows = [(f"/{each.name} {each.argument}".strip(), each.text) for each in COMMANDS]
    for title, lines in (("Commands", rows), ("Keys", _KEYS)):
        chat.terminal.notes.print(f"\n{title}", style="bold")
        _print_pairs(chat, lines, is_wide=is_wide)
    chat.terminal.note("\nPaths of images and sound in a message are attached. //text sends a text with a slash.")


def _print_pairs(chat: Chat, rows: Sequence[tuple[str, str]], *, is_wide: bool) -> None:
    if not is_wide:
        for left, right in rows:
            chat.terminal.notes.print(left, overflow="fold")
            chat.terminal.notes.print(Padding(right, (0, 0, 0, 2)), style="dim", overflow="fold")
        return
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for left, right in rows:
        table.add_row(f"  {left}", right)
    chat.terminal.notes.print(table)


def _bye(_: Chat, command: Command) -> None:
    # A word alone could be meant for the model.
    raise Leave("" if command.typed.startswith("/") else f"Left, because '{command.typed}' alone ends the chat.")


def _clear(chat: Chat, _: Command) -> None:
    chat.cut(chat.conversation.cleared())
    chat.used_tokens, chat.saved_as = 0, None
    chat.attachments, chat.texts = [], []
    chat.terminal.note("The conversation begins anew.")


def _system(chat: Chat, command: Command) -> None:
    if not command.argument:
        chat.terminal.note(f"System prompt: {chat.conversation.system or 'none'}")
        return
    set_system(chat, command.argument)


def _model(chat: Chat, command: Command) -> None:
    if not command.argument:
        _print_models(chat, [chat.client.model(chat.model.id)])
        return
    models = _listed(chat)
    named = next((model for model in models if command.argument in (model.id, *model.fields.get("aliases", ()))), None)
    if named is None:
        close = get_close_matches(command.argument, chat.model_ids, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(chat.model_ids)}."
        raise InvalidRequest(f"There is no model '{command.argument}'. {hint}")
    chat.use(named)
    chat.terminal.note(f"{chat.model.id} answers from now on.")


def _show(chat: Chat, command: Command) -> None:
    match command.argument.lower():
        case "" | "info" | "model":
            _print_models(chat, [chat.client.model(chat.model.id)])
        case "system":
            _system(chat, Command("system"))
        case "parameters" | "settings":
            set_command(chat, Command("set"))
        case other:
            raise InvalidRequest(f"{command.typed} takes nothing, system or parameters, not '{other[:40]}'.")


def _models(chat: Chat, _: Command) -> None:
    _print_models(chat, _listed(chat))


def _listed(chat: Chat) -> list[ModelEntry]:
    """Return the models, whose ids the tab key completes from now on."""
    models = chat.client.models()
    chat.model_ids = [model.id for model in models]
    return models


def _print_models(chat: Chat, models: list[ModelEntry]) -> None:
    for model in models:
        mark = "*" if model.id == chat.model.id else " "
        # An id is never cut or broken: it is there to be copied.
        chat.terminal.notes.print(f"{mark} {printable(model.id)}", style="bold", soft_wrap=True)
        chat.terminal.notes.print(f"    {printable(', '.join(_traits(model)))}", style="dim", overflow="fold")


def _traits(model: ModelEntry) -> list[str]:
    fields = model.fields
    size, context = fields.get("size_bytes"), model.context_length
    other = [each for each in fields.get("input_modalities", ()) if each != "text"]
    traits = [
        model.status,
        "" if model.makes_text else str(fields.get("kind", "")),
        "" if model.can_chat or not model.makes_text else "base model",
        fields.get("quantization", ""),
        f"context {context:,}" if context else "",
        size_text(size) if size else "",
        f"takes {' and '.join(other)}" if other else "",
        "default" if model.is_default else "",
    ]
    return [trait for trait in traits if trait]


def _media(kind: MediaKind) -> Callable[[Chat, Command], None]:
    def attach(chat: Chat, command: Command) -> None:
        path, text = _file_and_text(command)
        chat.attachments.append(read_media(path, kind))
        _send_or_wait(chat, text, f"'{path}' goes with the next message.")

    return attach


def _file(chat: Chat, command: Command) -> None:
    path, text = _file_and_text(command)
    content = read_text(path)
    # Longer than any run of backticks in the text.
    fence = "```"
    while fence in content:
        fence += "`"
    newline = "" if content.endswith("\n") else "\n"
    chat.texts.append(f"{Path(path).name}:\n{fence}\n{content}{newline}{fence}")
    _send_or_wait(chat, text, f"'{path}' ({len(content):,} characters) goes with the next message.")


def _file_and_text(command: Command) -> tuple[str, str]:
    path, text = first_path(command.argument)
    if not path:
        raise InvalidRequest(f"{command.typed} needs a file: {command.typed} FILE [TEXT].")
    return path, text


def _send_or_wait(chat: Chat, text: str, note: str) -> None:
    if text:
        chat.say(text)
    else:
        chat.terminal.note(note)


def _retry(chat: Chat, _: Command) -> None:
    if chat.unanswered is not None:
        chat.ask(chat.unanswered)
        return
    question = chat.conversation.last_question
    if question is None:
        raise InvalidRequest("There is no message to answer again.")
    before = chat.conversation
    chat.cut(chat.conversation.before_last_question())
    try:
        chat.ask(question)
    finally:
        # The answer there was is better than none.
        if chat.unanswered is not None:
            chat.cut(before)


def _edit(chat: Chat, _: Command) -> None:
    question = chat.unanswered or chat.conversation.last_question
    if question is None:
        raise InvalidRequest("There is no message to edit.")
    chat.prefill, chat.is_editing = question.text, True
    chat.attachments = list(question.attachments)


def _undo(chat: Chat, _: Command) -> None:
    question = chat.conversation.last_question
    if question is None:
        raise InvalidRequest("There is nothing to undo.")
    chat.cut(chat.conversation.before_last_question())
    begin = " ".join(question.text.split())
    chat.terminal.note(f"Removed '{begin[:60]}{'...' if len(begin) > 60 else ''}' and its answer.")


def _save(chat: Chat, command: Command) -> None:
    name, overwrites = _forced(command.argument)
    name = name or chat.saved_as or ""
    if not name:
        raise InvalidRequest("/save needs a name: /save NAME.")
    if not chat.conversation.turns:
        raise InvalidRequest("There is nothing to save yet.")
    if chat.saved.exists(name) and name != chat.saved_as and not overwrites:
        raise InvalidRequest(f"There is a saved conversation '{name}'. /save -f {name} overwrites it.")
    path = chat.saved.write(name, to_saved(chat.conversation, chat.model.id))
    chat.saved_as = name
    chat.terminal.note(f"Saved as '{name}': {path}")


def _load(chat: Chat, command: Command) -> None:
    name = command.argument
    if not name:
        names = chat.saved.names()
        chat.terminal.note("\n".join(names) if names else "No conversation is saved.")
        return
    if not chat.saved.exists(name) and name in chat.model_ids:
        raise InvalidRequest(f"There is no saved conversation '{name}'. /model {name} goes on with that model.")
    try:
        conversation, model = from_saved(chat.saved.read(name))
    except UnreadableConversation as error:
        raise InvalidRequest(f"'{name}' cannot be loaded: {error}.") from error
    chat.cut(conversation)
    chat.saved_as = name
    turns = len(conversation.turns)
    other = f", which was held with {model}; {chat.model.id} goes on" if model != chat.model.id else ""
    chat.terminal.note(f"Loaded '{name}' ({turns} turns){other}.")
    if conversation.last_answer is not None:
        view = chat.terminal.view()
        view.text(conversation.last_answer.text)
        view.close()


def _export(chat: Chat, command: Command) -> None:
    argument, overwrites = _forced(command.argument)
    path, _rest = first_path(argument)
    write = EXPORTS.get(Path(path).suffix.lower())
    if write is None:
        raise InvalidRequest(f"/export writes {' or '.join(f'FILE{ending}' for ending in EXPORTS)}, not '{argument}'.")
    if not chat.conversation.turns:
        raise InvalidRequest("There is nothing to export yet.")
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrites else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(write(chat.conversation, chat.model.id))
    except FileExistsError:
        raise InvalidRequest(f"{path} exists. /export -f {path} overwrites it.") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}.") from error
    chat.terminal.note(f"Written to {path}.")


def _forced(argument: str) -> tuple[str, bool]:
    """Return an argument without the option ``-f``, and whether it has it."""
    for option in ("-f", "--force"):
        if argument.startswith(f"{option} "):
            return argument.removeprefix(option).strip(), True
    return argument, False


def _copy(chat: Chat, command: Command) -> None:
    answer = chat.conversation.last_answer
    if answer is None:
        raise InvalidRequest("There is no answer to copy.")
    if command.argument not in ("", "code"):
        raise InvalidRequest(f"{command.typed} takes nothing, or 'code', not '{command.argument[:40]}'.")
    text = last_code(answer.text) if command.argument else answer.text
    if text is None:
        raise InvalidRequest("The last answer has no block of code.")
    if not chat.terminal.copy(text):
        raise InvalidRequest("The text is too long for the terminal's clipboard: /export FILE.md writes it to a file.")
    chat.terminal.note(f"Copied {len(text):,} characters, if the terminal allows it (OSC 52).")


def _tokens(chat: Chat, command: Command) -> None:
    if command.argument:
        count = chat.client.count_tokens({"model": chat.model.id, "content": command.argument})
        chat.terminal.note(f"{count:,} tokens")
        return
    conversation = chat.conversation
    has_prompt = conversation.sent or (conversation.system is not None and chat.model.can_chat)
    request = tokens_request(conversation, chat.model.id, is_chat=chat.model.can_chat)
    count = chat.client.count_tokens(request) if has_prompt else 0
    length = chat.model.context_length
    share = f" of {length:,} ({100 * count / length:.0f} %)" if length else ""
    out = f"; the oldest {conversation.left_out} turns are no longer sent" if conversation.left_out else ""
    chat.terminal.note(f"{count:,} tokens{share}{out}")


def _stats(chat: Chat, _: Command) -> None:
    if not chat.last_timings:
        raise InvalidRequest("There is no answer yet.")
    chat.terminal.note("\n".join([f"last {speed_line(chat.last_timings)}", *chat.totals.lines()]))


_RUN: Final[Mapping[str, Callable[[Chat, Command], None]]] = MappingProxyType(
    {
        "help": _help,
        "bye": _bye,
        "clear": _clear,
        "system": _system,
        "set": set_command,
        "model": _model,
        "models": _models,
        "show": _show,
        "image": _media("image"),
        "audio": _media("audio"),
        "file": _file,
        "retry": _retry,
        "edit": _edit,
        "undo": _undo,
        "save": _save,
        "load": _load,
        "export": _export,
        "copy": _copy,
        "tokens": _tokens,
        "stats": _stats,
        "tools": tools_command,
    }
)

_WITHOUT_ARGUMENT: Final = frozenset(command.name for command in COMMANDS if not command.argument) - {"help"}
