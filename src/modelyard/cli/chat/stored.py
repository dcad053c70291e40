"""What the chat keeps on disk, for its user alone: the history of the prompt, and conversations that were saved.

Source of the folder: XDG Base Directory Specification, XDG_STATE_HOME.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from modelyard.config.paths import user_folder
from modelyard.errors import ConfigError, InvalidRequest
from modelyard.system.private_files import FILE_MODE, is_ours, make_private_folder, read_private, write_private

logger = logging.getLogger(__name__)

NO_HISTORY_VARIABLE: Final = "MODELYARD_NO_HISTORY"

# A longer history is cut to the half of it when a chat begins.
_MAX_HISTORY_BYTES: Final = 1_000_000

_NAME: Final = re.compile(r"[^\W_][\w .-]{0,63}")
_ENDING: Final = ".json"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return Modelyard's folder in the user's state folder.

    Raises:
        ConfigError: the user has no home folder, and XDG_STATE_HOME is not set.
    """
    return user_folder(environ, "XDG_STATE_HOME", ".local/state") / "modelyard"


class PromptHistory(FileHistory):
    """Lines that were sent, in a file that only its user may read.

    Attributes:
        is_kept: whether new lines are written to the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.is_kept = True

    def store_string(self, string: str) -> None:
        """Append one message to the file. A full disk loses the line, not the chat."""
        if not self.is_kept:
            return
        lines = "".join(f"+{line}\n" for line in string.split("\n"))
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(self.filename, flags, FILE_MODE), "ab") as file:
                file.write(f"\n# sent\n{lines}".encode(errors="replace"))
        except OSError as error:
            logger.warning("The history of the prompt is not kept: %s: %s", self.filename, error.strerror)
            self.is_kept = False

    def load_history_strings(self) -> Iterable[str]:
        """Return the messages in the file, the last one first."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []


def prompt_history(environ: Mapping[str, str]) -> History:
    """Return the history of the prompt; one in memory if the user wants none, or if no file can be kept."""
    if environ.get(NO_HISTORY_VARIABLE, "0") not in ("", "0"):
        return InMemoryHistory()
    try:
        folder = state_folder(environ)
        make_private_folder(folder)
        path = folder / "chat_history"
        if path.is_symlink() or path.exists():
            _cut(path)
    except (OSError, ConfigError) as error:
        logger.debug("The history of the prompt is not kept: %s", error)
        return InMemoryHistory()
    return PromptHistory(path)


def _cut(path: Path) -> None:
    """Remove the oldest half of a history that is too long, and other users' access to the file.

    Raises:
        OSError: the file is not the user's own.
    """
    contents = read_private(path)
    if len(contents) > _MAX_HISTORY_BYTES:
        kept = contents[-_MAX_HISTORY_BYTES // 2 :]
        write_private(path, kept[max(0, kept.find(b"\n# ")) :])


class SavedConversations:
    """Conversations by name, each in a file of its own.

    Args:
        folder: has the files; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names of all conversations, sorted."""
        try:
            return sorted(path.stem for path in self._folder.iterdir() if path.suffix == _ENDING and is_ours(path))
        except OSError:
            return []

    def exists(self, name: str) -> bool:
        """Whether there is a conversation of that name.

        Raises:
            InvalidRequest: no conversation can have the name.
        """
        return os.path.lexists(self._path(name))

    def write(self, name: str, data: bytes) -> Path:
        """Write a conversation, and return its file.

        Raises:
            InvalidRequest: it cannot be written, or cannot have the name.
        """
        path = self._path(name)
        try:
            make_private_folder(self._folder)
            write_private(path, data)
        except OSError as error:
            raise InvalidRequest(f"'{name}' was not saved: {path}: {error.strerror}.") from error
        return path

    def read(self, name: str) -> bytes:
        """Return a conversation.

        Raises:
            InvalidRequest: there is none of that name, or it cannot be read.
        """
        path = self._path(name)
        try:
            return read_private(path)
        except FileNotFoundError:
            known = ", ".join(self.names())
            raise InvalidRequest(
                f"There is no saved conversation '{name}'. " + (f"There are: {known}." if known else "None is saved.")
            ) from None
        except OSError as error:
            raise InvalidRequest(f"'{name}' cannot be read: {path}: {error.strerror}.") from error

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"'{name[:80]}' is no name for a conversation. A name has up to 64 letters, digits, blanks and . _ -, "
                "and begins with a letter or digit."
            )
        return self._folder / f"{name}{_ENDING}"
