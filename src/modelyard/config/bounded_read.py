"""Reads regular files of bounded size, and refuses pipes and devices, which could block or never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

MAX_CONFIG_BYTES: Final = 2**20

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class NotReadable(Exception):
    """The file is not a regular one, or too large; the message says which, as a sentence."""


def read_regular(path: Path, limit: int = MAX_CONFIG_BYTES) -> bytes:
    """Return the bytes of a regular file. It never waits for a named pipe, and opens no device.

    Raises:
        NotReadable: it is no regular file, or has more than ``limit`` bytes.
        OSError: the file is missing, or may not be read.
    """
    _check_kind(path.stat().st_mode)
    # Non-blocking, because the path may lead to a pipe by now.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(descriptor, "rb") as file:
        _check_kind(os.fstat(descriptor).st_mode)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise NotReadable(f"The file has more than {limit} bytes, which no configuration needs.")
    return content


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise NotReadable(f"This is {kind}, not a file.")
