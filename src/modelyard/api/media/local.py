"""Reads images and sound from files of the server, only inside configured folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.api.media.kinds import MediaKind
from modelyard.errors import InvalidRequest


def is_local(url: str) -> bool:
    """Whether ``url`` is a file URL or an absolute path."""
    return url.startswith("/") or url[:5].lower() == "file:"


def read_local(url: str, param: str, kind: MediaKind, folders: Sequence[Path]) -> bytes:
    """Return the content of the file that ``url`` names.

    Symbolic links are resolved first, and their target must be inside one of ``folders``. The error for a path outside
    does not reveal whether the file exists.

    Raises:
        InvalidRequest: the path is outside, does not exist, is no regular file, or the file is too large.
    """
    if not folders:
        raise InvalidRequest(
            f"This server reads no local files. Send the {kind.name} as a data URL, or set {kind.folders_key} in "
            "[server].",
            param,
        )
    try:
        path = _path(url).resolve()
        is_inside = any(path.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, ValueError, RuntimeError):
        # A loop of links, a NUL byte, or a name that is too long.
        is_inside = False
    if not is_inside:
        raise InvalidRequest(f"The file is not inside a folder that this server reads {kind.plural} from.", param)
    try:
        # O_NOFOLLOW refuses a path that has become a link since; O_NONBLOCK does not wait for the writer of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 (of a descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidRequest(f"The path is not a regular file. Send the path of an {kind.name} file.", param)
            data = bytearray()
            while len(data) <= kind.max_bytes and (part := file.read(kind.max_bytes + 1 - len(data))):
                data += part
    except OSError as failure:
        raise InvalidRequest(f"The file cannot be read: {failure.strerror}. Check its name.", param) from None
    return bytes(data)


def _path(url: str) -> Path:
    if url.startswith("/"):
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError(url)
    return Path(unquote(parts.path))
