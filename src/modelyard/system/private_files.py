"""Files and folders that only the user who runs the program may read: modes 0700 and 0600, whatever the umask is.

They may lie in folders that other users can write to, such as /tmp or a shared cache folder. So files of another user
are refused, and a symbolic link that another user made is not followed. A link of the user's own is followed, because
cache folders are often moved to another disk.

Errors are ``OSError``, whose ``strerror`` names the problem and the way out. On Windows, which has no owner ids,
nothing is refused.
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
"""Umask of child processes that write files for this one."""

HALF_WRITTEN: Final = ".part"
"""Suffix of files that are being written. Such a file stays behind if its process was killed."""

_OTHERS: Final = 0o077
_ROOT: Final = 0
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
# Opening a FIFO that lies in the place of a file would block.
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)


def make_private_folder(folder: Path, root: Path | None = None) -> None:
    """Make ``folder`` with access for its user only; an existing folder loses the access of others.

    Args:
        folder: absolute.
        root: the outermost parent that belongs to the program, which is closed as well; None: there is none.

    Raises:
        OSError: the folder cannot be made, or a folder between ``root`` and it belongs to another user.
    """
    own = [folder, *folder.parents][: len(folder.relative_to(root).parts) + 1] if root is not None else [folder]
    for each in reversed(own):
        try:
            # Missing parents, such as the user's cache folder, become private, too.
            _make_missing(each)
        except FileExistsError:
            _close(each)


def is_ours(path: Path) -> bool:
    """Whether a file or folder exists, belongs to the user, and is not a link that another user made."""
    try:
        link, target = path.lstat(), path.stat()
    except OSError:
        return False
    return _owned(link) and _owned(target)


@contextmanager
def open_private(path: Path) -> Iterator[BinaryIO]:
    """Open a file of the program for reading; other users lose access to it.

    Raises:
        OSError: it cannot be read, is a link or not a regular file, or belongs to another user.
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
            # Some file systems have no permissions.
            with suppress(OSError):
                os.fchmod(descriptor, FILE_MODE)
        yield file


def read_private(path: Path) -> bytes:
    """Return the contents of a file of the program.

    Raises:
        OSError: as ``open_private``.
    """
    with open_private(path) as file:
        return file.read()


@contextmanager
def writing_private(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a temporary name; it is renamed to ``path`` on success and removed on failure.

    It is unbuffered, so after a failed ``write`` ``tell`` is the number of bytes written.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}{HALF_WRITTEN}")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            if hasattr(os, "fchmod"):
                # The umask may remove rights of the owner, too.
                with suppress(OSError):
                    os.fchmod(descriptor, FILE_MODE)
            yield file
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_private(path: Path, contents: bytes) -> None:
    """Write a file of the program atomically.

    Raises:
        OSError: it cannot be written.
    """
    with writing_private(path) as file:
        write_all(file, contents)


def write_all(file: BinaryIO, contents: bytes | memoryview) -> None:
    """Write all of ``contents`` to an unbuffered file, whose ``write`` may take a part at a time.

    Raises:
        OSError: not all of it can be written.
    """
    left = memoryview(contents).cast("B")
    while left:
        left = left[file.write(left) :]


def close_to_others(path: Path) -> None:
    """Make a file private that another program has written for this one.

    Raises:
        OSError: it does not exist.
    """
    if sys.platform != "win32":
        path.chmod(FILE_MODE)


def remove_tree(path: Path) -> None:
    """Remove a folder and its contents, or a link without its target. Files that are missing or stay are no error."""
    if path.is_symlink():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _make_missing(folder: Path) -> None:
    """Make a folder and its missing parents.

    Raises:
        FileExistsError: the path exists.
    """
    try:
        folder.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        with suppress(FileExistsError):
            _make_missing(folder.parent)
        folder.mkdir(FOLDER_MODE)
    if sys.platform != "win32":
        # The umask may remove rights of the owner, too.
        folder.chmod(FOLDER_MODE)


def _close(folder: Path) -> None:
    """Remove other users' access to an existing folder.

    Raises:
        OSError: it is not a folder, or belongs to another user.
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
        # A folder of root's from which other users cannot remove files: files in it can still be private.
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
    """Whether the file belongs to the user who runs the program, or to root, who can read and write everything."""
    return sys.platform == "win32" or found.st_uid in (os.geteuid(), _ROOT)


def _foreign(found: os.stat_result, path: Path) -> PermissionError:
    mine = f"user {os.geteuid()}" if sys.platform != "win32" else "you"
    return _refused(f"it belongs to {_user(found)}, not to {mine}; give it to {mine}, or name another folder", path)


def _user(found: os.stat_result) -> str:
    return f"user {found.st_uid}"


def _refused(why: str, path: Path) -> PermissionError:
    return PermissionError(errno.EACCES, why, str(path))
