"""The table of a server's engines as a file, which shows what they were doing when the whole server died.

A process that ends by a signal leaves its shared memory in the page cache, so the next start finds it. The owner locks
its file, and the system releases the lock when the owner ends, so an unlocked file belongs to a dead server.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelyard.config.paths import make_own_folder
from modelyard.engine.scheduling.engine_table import TABLE_BYTES, EngineActivity, EngineTable, activities_in
from modelyard.system.private_files import is_ours

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".engines"
# Names are random, so an attempt fails only if a starting server searches for leftovers at that moment.
_MAX_ATTEMPTS: Final = 8


class Journal:
    """A table of engines in a file, which stays behind if the server dies.

    Attributes:
        path: the file, for ``EngineTable.open`` in other processes of the server.
        table: the table of the server's engines.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        self.table = EngineTable(mmap.mmap(descriptor, TABLE_BYTES))

    def close(self) -> None:
        """Remove the file at a regular end. Engines that still run keep their mapping of it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("The journal %s cannot be removed: %s", self.path, error)
        os.close(descriptor)


def open_journal(folder: Path) -> Journal:
    """Return a new table in a file in ``folder``.

    Raises:
        OSError: the file cannot be made, or the system has no locks that end with their process (Windows).
    """
    make_own_folder(folder)
    for _ in range(_MAX_ATTEMPTS):
        path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Before it was locked the file looked like a leftover, and a starting server may have removed it.
            if _lock(descriptor) and _is_at(path, descriptor):
                # Written in full: a full disk raises an error here rather than a signal in the middle of a step.
                _write(descriptor, bytes(TABLE_BYTES))
                return Journal(path, descriptor)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        os.close(descriptor)
    raise OSError(errno.EAGAIN, f"no file could be made in {_MAX_ATTEMPTS} attempts", str(folder))


def leftover_journals(
    folder: Path, note: Callable[[EngineActivity], object] = lambda _: None
) -> tuple[EngineActivity, ...]:
    """Return what the engines of dead servers were doing, from the journals in ``folder``, and remove those.

    Each activity is returned to one caller, also if several servers start at once. Unreadable files are left out.

    Args:
        folder: the folder of journals; it need not exist.
        note: called with each activity before its file is removed, so that a death in between loses none.
    """
    found: list[EngineActivity] = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            found.extend(_take_over(path, note))
        except FileNotFoundError:
            # Another server or the file's owner has removed it.
            continue
        except OSError as error:
            logger.warning("The journal %s cannot be read: %s", path, error)
    return tuple(found)


def _take_over(path: Path, note: Callable[[EngineActivity], object]) -> tuple[EngineActivity, ...]:
    """Return the activities in a file and remove it; () if its owner lives, or another process has locked it."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not is_ours(path):
            return ()
        if not _lock(descriptor) or not _is_at(path, descriptor):
            return ()
        activities = activities_in(_read(descriptor))
        for activity in activities:
            note(activity)
        path.unlink()
        return activities
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock the file until the descriptor is closed; return False if another process has locked it.

    Raises:
        OSError: the file system has no locks, or the operating system none that end with their process.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "Windows has no locks that end with their process")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _read(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(TABLE_BYTES + 1)


def _write(descriptor: int, contents: bytes) -> None:
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(contents)
