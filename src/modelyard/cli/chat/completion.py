"""What the tab key completes: commands, and their arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from modelyard.cli.chat.attachments import kind_of
from modelyard.cli.chat.commands import COMMANDS, Command, parse_line

_PATH_STARTS: Final = ("/", "./", "../", "~/")

_SUMMARIES: Final = {f"/{command.name}": command.text for command in COMMANDS}


class ChatCompleter(Completer):
    """Completes commands, names of models, settings and conversations, and paths.

    Args:
        words: returns the words that complete the argument of a command, by the command's name.
    """

    def __init__(self, words: Mapping[str, Callable[[], Iterable[str]]]) -> None:
        self._words = words
        self._paths = PathCompleter(expanduser=True)
        self._media = PathCompleter(
            expanduser=True, file_filter=lambda path: Path(path).is_dir() or bool(kind_of(path))
        )
        self._by_command = {"image": self._media, "audio": self._media, "file": self._paths, "export": self._paths}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return what can stand in place of the word at the cursor."""
        text = document.text_before_cursor
        command = re.match(r"\s*(/\S*)\s+(.*)", text, re.DOTALL)
        if command is not None:
            yield from self._arguments(command[1], command[2], complete_event)
            return
        word = re.search(r"\S*$", text)
        assert word is not None
        if word[0] == text.lstrip() and word[0].startswith("/"):
            yield from _matching(word[0], _SUMMARIES)
        if word[0].startswith(_PATH_STARTS) and (word[0] != text.lstrip() or "/" in word[0][1:]):
            yield from self._media.get_completions(Document(word[0]), complete_event)

    def _arguments(self, typed: str, argument: str, event: CompleteEvent) -> Iterable[Completion]:
        line = parse_line(typed, lambda _: False)
        if not isinstance(line, Command):
            return
        if line.name in self._by_command:
            yield from self._by_command[line.name].get_completions(Document(argument), event)
        elif line.name in self._words:
            yield from _matching(argument, self._words[line.name]())


def _matching(start: str, words: Iterable[str]) -> Iterable[Completion]:
    for word in words:
        if word.lower().startswith(start.lower()):
            yield Completion(word, -len(start), display_meta=_SUMMARIES.get(word, ""))
