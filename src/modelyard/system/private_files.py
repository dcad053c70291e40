"""Files and folders that only the user who runs the program may read: 0700 and 0600, whatever the umask is.

They lie where other users of the machine may write, too: under /tmp, or in a cache folder that several share. So what
belongs to another user is refused, and a symbolic link that another user made is not followed. A user's own link is: a
cache folder is often moved to another disk.

Errors are ``OSError``, whose ``strerror`` says what is wrong and what to do. Where the system knows no owners
(Windows), nothing is refused.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

logger = logging.getLogger(__name__)

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
PRIVATE_UMASK: Final = 0o077
"""For child processes that write files for this one."""

HALF_WRITTEN: Final = ".part"
"""Names of files that are being written end so. One that stays was left by a process that was killed."""

_OTHERS: Final = 0o077
_ROOT: Final = 0
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
# A FIFO in the place of a file would hold whoever opens it.
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)


def make_private_folder(folder: Path, root: Path | None = None) -> None:
    """Have ``folder``, closed to other users; one that is there and is open to them is closed.

    Args:
        folder: absolute.
        root: the first of its parents that is the program's own, and is closed as well; None: there is none.

    Raises:
        OSError: it cannot be made, or it or a folder on the way from ``root`` belongs to another user.
    """
    own = [folder, *folder.parents][: len(folder.relative_to(root).parts) + 1] if root is not None else [folder]
    for each in reversed(own):
        try:
            # Parents, too: a user's cache folder that is made here is the user's alone.
            _make_missing(each)
        except FileExistsError:
            _close(each)


def is_ours(path: Path) -> bool:
    """Whether a file or folder is there, is the user's own, and is no link that another user made."""
    try:
        link, target = path.lstat(), path.stat()
    except OSError:
        return False
    return _owned(link) and _owned(target)


@contextmanager
def open_private(path: Path) -> Iterator[BinaryIO]:
    """A file of the program, to be read; one that others can read is closed to them.

    Raises:
        OSError: it cannot be read, is a link or no regular file, or belongs to another user.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT | _BINARY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused("it is a symbolic link; remove it", path) from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refused("it is no file; remove it", path)
        if not _owned(found):
            raise _foreign(found, path)
        if found.st_mode & _OTHERS and hasattr(os, "fchmod"):
            # A file system without permissions has nothing to close.
            with suppress(OSError):
                os.fchmod(descriptor, FILE_MODE)
        yield file


def read_private(path: Path) -> bytes:
    """The contents of a file of the program.

    Raises:
        OSError: as of ``open_private``.
    """
    with open_private(path) as file:
        return file.read()


@contextmanager
def writing_private(path: Path) -> Iterator[BinaryIO]:
    """A file that is written under another name and gets its own when it is complete; else nothing of it stays.

    It is unbuffered: what a failed ``write`` has written before is known from ``tell``.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}{HALF_WRITTEN}")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            if hasattr(os, "fchmod"):
                # A umask may have taken rights even from the owner.
                with suppress(OSError):
                    os.fchmod(descriptor, FILE_MODE)
            yield file
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_private(path: Path, contents: bytes) -> None:
    """Write a file of the program, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with writing_private(path) as file:
        write_all(file, contents)


def write_all(file: BinaryIO, contents: bytes | memoryview) -> None:
    """Write everything to an unbuffered file, which may take less of it at a time.

    Raises:
        OSError: it does not take all of it.
    """
    left = memoryview(contents).cast("B")
    while left:
        left = left[file.write(left) :]


def close_to_others(path: Path) -> None:
    """Make a file private that another program has written for this one.

    Raises:
        OSError: it is not there.
    """
    if sys.platform != "win32":
        path.chmod(FILE_MODE)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it; of a link, the link alone. What is not there, or stays, is no error."""
    if path.is_symlink():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _make_missing(folder: Path) -> None:
    """Make a folder and its missing parents.

    Raises:
        FileExistsError: something of that name is there.
    """
    try:
        folder.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        with suppress(FileExistsError):
            _make_missing(folder.parent)
        folder.mkdir(FOLDER_MODE)
    if sys.platform != "win32":
        # A umask may have taken rights even from the owner.
        folder.chmod(FOLDER_MODE)


def _close(folder: Path) -> None:
    """Close a folder that is there to other users.

    Raises:
        OSError: it is no folder, or belongs to another user.
    """
    link = folder.lstat()
    if stat.S_ISLNK(link.st_mode) and not _owned(link):
        raise _refused(f"it is a link that {_user(link)} made; remove it, or name another folder", folder)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder; remove it, or name another one", str(folder))
    if sys.platform == "win32":
        return
    if found.st_uid != os.geteuid():
        # The system's own folder, of which others cannot take files away: files in it are private all the same.
        is_safe = found.st_uid == _ROOT and not (found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX)
        if not is_safe:
            raise _foreign(found, folder)
        return
    if found.st_mode & _OTHERS and not found.st_mode & stat.S_ISVTX:
        try:
            folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS | FOLDER_MODE)
        except OSError as error:
            logger.warning("%s stays open to other users of the machine: %s", folder, error.strerror)


def _owned(found: os.stat_result) -> bool:
    """Whether it belongs to the user who runs the program, or to root, who could read and write everything anyway."""
    return sys.platform == "win32" or found.st_uid in (os.geteuid(), _ROOT)


def _foreign(found: os.stat_result, path: Path) -> PermissionError:
    mine = f"user {os.geteuid()}" if sys.platform != "win32" else "you"
    return _refused(f"it belongs to {_user(found)}, not to {mine}; give it to {mine}, or name another folder", path)


def _user(found: os.stat_result) -> str:
    return f"user {found.st_uid}"


def _refused(why: str, path: Path) -> PermissionError:
    return PermissionError(errno.EACCES, why, str(path))
