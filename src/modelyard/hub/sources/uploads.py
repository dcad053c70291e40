"""Keeps files that clients have sent by their digests, as Ollama's blobs. A file is there whole, or not at all.

A file that no model has been made of ends in ``.new``, and is deleted after a day: a client that gave up does not fill
the disk. Other servers of the user have the same folder, so only the name can tell whether a file is in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelyard.config.paths import user_folder
from modelyard.errors import ConfigError, InvalidRequest, UnusableModel
from modelyard.hub.sources.disk import check_disk_space
from modelyard.system.private_files import HALF_WRITTEN, make_private_folder

logger = logging.getLogger(__name__)

MAX_UNUSED_S: Final = 24 * 3600.0
"""Seconds that a file is kept of which no model is made."""

_UNUSED: Final = ".new"
_DIGEST: Final = re.compile(r"sha256[:-]([0-9a-f]{64})")

# How often the disk is checked where the client does not say how much it will send.
_CHECKED_BYTES: Final = 2**26


class Uploads:
    """Files of clients in a folder.

    Args:
        folder: the folder; it is made when the first file arrives. None: the user's data folder.
    """

    def __init__(self, folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._folder, self._environ = folder, environ

    @property
    def folder(self) -> Path:
        """The folder; it need not exist.

        Raises:
            ConfigError: the user has no home folder.
        """
        data = user_folder(self._environ, "XDG_DATA_HOME", ".local/share") if self._folder is None else self._folder
        return data / "modelyard" / "uploads" if self._folder is None else data

    def find(self, digest: str) -> Path | None:
        """Return the file with that digest, ``sha256:<hex>``; None if it is not there.

        An unused file is kept for another ``MAX_UNUSED_S`` from then on.

        Raises:
            InvalidRequest: it is no digest.
        """
        path = self.folder / f"sha256-{_hex(digest)}"
        if path.is_file():
            return path
        unused = path.with_name(path.name + _UNUSED)
        try:
            os.utime(unused)
        except OSError:
            return None
        return unused

    def claim(self, path: Path) -> Path:
        """Keep a file for good, as a model is made of it, and return its path from then on.

        A file that is in use already, or is none of this folder, keeps its path.

        Raises:
            OSError: it is gone, or cannot be renamed.
        """
        if path.parent != self.folder or path.suffix != _UNUSED:
            return path
        used = path.with_suffix("")
        try:
            path.replace(used)
        except FileNotFoundError:
            if not used.is_file():
                raise
        return used

    def sweep(self, now: float | None = None) -> None:
        """Delete what was sent more than ``MAX_UNUSED_S`` ago, and is unused or was never sent to its end.

        Args:
            now: the time, in seconds of the epoch; None: the present.
        """
        oldest = (time.time() if now is None else now) - MAX_UNUSED_S
        try:
            paths = list(self.folder.iterdir())
        except (OSError, ConfigError):
            return
        for path in paths:
            if path.suffix not in (_UNUSED, HALF_WRITTEN):
                continue
            with suppress(OSError):
                status = path.stat()
                if status.st_mtime < oldest:
                    path.unlink()
                    logger.info("Deleted %s, of which no model was made: %d bytes", path, status.st_size)

    async def receive(self, digest: str, pieces: AsyncIterator[bytes], size_bytes: int | None) -> Path:
        """Write a file, and return its path. A cancelled or broken upload leaves nothing.

        Args:
            digest: of the file, ``sha256:<hex>``.
            pieces: its contents.
            size_bytes: what the client announces; None: nothing.

        Raises:
            InvalidRequest: it is no digest, or not that of the contents.
            UnusableModel: the disk has no room, or the file cannot be written.
        """
        path = self.folder / f"sha256-{_hex(digest)}{_UNUSED}"
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{HALF_WRITTEN}")
        found, unchecked = hashlib.sha256(), 0
        await asyncio.to_thread(self.sweep)
        check_disk_space(self.folder, size_bytes or 0, "The upload is refused")
        try:
            make_private_folder(self.folder)
            with part.open("xb") as file:
                async for piece in pieces:
                    await asyncio.to_thread(_take, file.write, found.update, piece)
                    unchecked += len(piece)
                    if unchecked >= _CHECKED_BYTES:
                        check_disk_space(self.folder, unchecked, "The upload is ended")
                        unchecked = 0
            if found.hexdigest() != _hex(digest):
                raise InvalidRequest(
                    f"The digest of what was sent is sha256:{found.hexdigest()}, not {digest}.", "digest"
                )
            part.replace(path)
        except OSError as error:
            raise UnusableModel(f"The upload cannot be written to {self.folder}: {error.strerror}.") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return path

    def remove(self, path: Path) -> None:
        """Delete a file of this folder; others are left alone.

        Raises:
            OSError: it cannot be deleted.
        """
        if path.parent == self.folder:
            path.unlink(missing_ok=True)


def _take(write: object, update: object, piece: bytes) -> None:
    write(piece)  # type: ignore[operator]
    update(piece)  # type: ignore[operator]


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidRequest(f"'{digest[:100]}' is no digest. Write sha256: and 64 hexadecimal digits.", "digest")
    return match[1]
