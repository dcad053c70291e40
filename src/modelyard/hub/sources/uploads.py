"""Keeps files that clients have sent by their digests, as Ollama's blobs. A file is there whole, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelyard.config.paths import user_folder
from modelyard.errors import InvalidRequest, UnusableModel
from modelyard.hub.sources.disk import check_disk_space
from modelyard.system.private_files import HALF_WRITTEN, make_private_folder

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

        Raises:
            InvalidRequest: it is no digest.
        """
        path = self.folder / f"sha256-{_hex(digest)}"
        return path if path.is_file() else None

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
        path = self.folder / f"sha256-{_hex(digest)}"
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{HALF_WRITTEN}")
        found, unchecked = hashlib.sha256(), 0
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
