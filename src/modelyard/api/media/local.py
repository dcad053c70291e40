"""Images and sound that lie on the server: only inside of folders that were opened for it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.api.media.kinds import MediaKind
from modelyard.errors import InvalidRequest


def is_local(url: str) -> bool:
    """Whether it names a file of this machine: a file URL or an absolute path."""
    return url.startswith("/") or url[:5].lower() == "file:"


def read_local(url: str, param: str, kind: MediaKind, folders: Sequence[Path]) -> bytes:
    """The file that ``url`` names.

    Links are followed first, and where they lead must be inside of one of ``folders``. What is outside is answered
    alike whether it is there or not.

    Raises:
        InvalidRequest: it is outside, is not there, is no file, or is too large.
    """
    if not folders:
        raise InvalidRequest(
            f"This server reads no local files. Send the {kind.name} as a data URL; whoever runs the server can set "
            f"{kind.folders_key} in [server].",
            param,
        )
    try:
        path = _path(url).resolve()
        is_inside = any(path.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, ValueError, RuntimeError):
        # A loop of links, a zero byte, a name that is too long.
        is_inside = False
    if not is_inside:
        raise InvalidRequest(f"The file is not inside of a folder that this server reads {kind.plural} from.", param)
    try:
        # Not following what became a link since, nor waiting for the writer of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 (of a descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidRequest(f"The name is not that of a file. Name an {kind.name} file.", param)
            data = bytearray()
            while len(data) <= kind.most_bytes and (part := file.read(kind.most_bytes + 1 - len(data))):
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
