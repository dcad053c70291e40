"""What tells whether a file is still the one that was read: cheap to have, and to compare."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Change = Literal["none", "replaced", "written over"]
"""What happened to a file since. One that was replaced, also by nothing, stays whole for those who have it open or
mapped; one that was written over, or cut off, does not."""


class FileStamp(NamedTuple):
    """A file as it was.

    Attributes:
        path: absolute; links are followed when it is looked at.
        modified_ns: of its contents, since the epoch.
    """

    path: Path
    device: int
    inode: int
    size: int
    modified_ns: int

    @property
    def contents(self) -> tuple[Path, int, int]:
        """Equal where the contents are, as far as that is told without reading them.

        Without the inode, which some file systems in user space number anew each time that they are asked.
        """
        return self.path, self.size, self.modified_ns

    @classmethod
    def of(cls, path: Path, status: os.stat_result | None = None) -> FileStamp:
        """The file at ``path`` as it is, or as ``status`` says.

        Raises:
            OSError: it cannot be looked at.
        """
        found = path.stat() if status is None else status
        return cls(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def stamps_of(paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """The files at ``paths`` as they are.

    Raises:
        OSError: one of them cannot be looked at.
    """
    return tuple(FileStamp.of(path) for path in paths)


def change(before: FileStamp, now: FileStamp | None) -> Change:
    """What happened to a file; None: nothing is at its path any more."""
    if now is None or (before.device, before.inode) != (now.device, now.inode):
        return "replaced"
    is_same = (before.size, before.modified_ns) == (now.size, now.modified_ns)
    return "none" if is_same else "written over"


def first_changed(stamps: Sequence[FileStamp]) -> Path | None:
    """The first file that is not there any more, or has other contents, by whatever way; None: all are as they were."""
    for stamp in stamps:
        try:
            now = FileStamp.of(stamp.path)
        except OSError:
            return stamp.path
        if now.contents != stamp.contents:
            return stamp.path
    return None
