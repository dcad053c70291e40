"""Stamps of files, which show cheaply whether a file has changed since it was read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Change = Literal["none", "replaced", "written over"]
"""How a file has changed. A process that has a file open or mapped keeps the old contents if it was "replaced" or
removed, and sees other contents if it was "written over" or truncated."""


class FileStamp(NamedTuple):
    """The state of a file at one time.

    Attributes:
        path: absolute; symbolic links are followed.
        modified_ns: time of the last change of the contents, since the epoch.
    """

    path: Path
    device: int
    inode: int
    size: int
    modified_ns: int

    @property
    def contents(self) -> tuple[Path, int, int]:
        """Values that are equal if the contents are, as far as that shows without reading them.

        The inode is left out, because some file systems in user space number it anew at each query.
        """
        return self.path, self.size, self.modified_ns

    @classmethod
    def of(cls, path: Path, status: os.stat_result | None = None) -> FileStamp:
        """Return the stamp of the file at ``path``, from ``status`` if given.

        Raises:
            OSError: its status cannot be read.
        """
        found = path.stat() if status is None else status
        return cls(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def stamps_of(paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """Return the stamps of the files at ``paths``.

    Raises:
        OSError: the status of one of them cannot be read.
    """
    return tuple(FileStamp.of(path) for path in paths)


def change(before: FileStamp, now: FileStamp | None) -> Change:
    """Return how a file changed between two stamps. ``now`` is None if its path no longer exists."""
    if now is None or (before.device, before.inode) != (now.device, now.inode):
        return "replaced"
    is_same = (before.size, before.modified_ns) == (now.size, now.modified_ns)
    return "none" if is_same else "written over"


def first_changed(stamps: Sequence[FileStamp]) -> Path | None:
    """Return the path of the first file that is missing or has other contents; None if all are unchanged."""
    for stamp in stamps:
        try:
            now = FileStamp.of(stamp.path)
        except OSError:
            return stamp.path
        if now.contents != stamp.contents:
            return stamp.path
    return None
