"""Cache of models that were converted or quantised on this machine, keyed by their inputs, so each is made once.

An entry is a folder, named by a digest, with the GGUF file and a JSON note that describes it. The file gets its name
when it is complete, under a lock between processes: neither a crash nor two servers leave an incomplete entry.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from modelyard.config.paths import make_own_folder, own_cache
from modelyard.errors import UnusableModel
from modelyard.hub.sources.listing import OnProgress, Progress
from modelyard.system.private_files import (
    FILE_MODE,
    close_to_others,
    is_ours,
    make_private_folder,
    read_private,
    remove_tree,
    write_private,
)

logger = logging.getLogger(__name__)

_NOTE: Final = "entry.json"
_LOCKS: Final = ".locks"
_POLL_S: Final = 0.2
_DIGEST_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """A converted model.

    Attributes:
        key: digest of the inputs of the conversion.
        path: path of the GGUF file.
        source: the model that was converted, as the user named it.
        label: quantisation type, such as "Q4_K_M".
        used_at: time of the last use, in seconds since the epoch.
    """

    key: str
    path: Path
    source: str
    label: str
    size_bytes: int
    used_at: float


def default_folder() -> Path:
    """Return the folder in which converted models are kept."""
    return own_cache() / "converted"


def key_of(facts: Mapping[str, Any]) -> str:
    """Return a digest of ``facts``: everything that the contents of a converted file depend on."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).hexdigest()


class ConvertedModels:
    """The converted models in a folder, which need not exist yet."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def find(self, key: str) -> Entry | None:
        """Return the entry of that key; None if there is no complete one."""
        return _read_entry(self.folder / key)

    def list(self) -> list[Entry]:
        """Return all entries, the most recently used first."""
        folders = self.folder.iterdir() if self.folder.is_dir() else iter(())
        entries = [entry for folder in folders if (entry := _read_entry(folder)) is not None]
        return sorted(entries, key=lambda entry: -entry.used_at)

    def mark_used(self, entry: Entry) -> None:
        """Set the time of the entry's last use to now."""
        os.utime(entry.path.parent / _NOTE)

    def delete(self, entry: Entry) -> None:
        """Remove an entry; engines that have its weights mapped keep them.

        Raises:
            UnusableModel: another process is making or reading the entry, or it cannot be removed.
        """
        try:
            with self._lock(entry.key, timeout_s=_POLL_S):
                shutil.rmtree(entry.path.parent)
        except Timeout:
            raise UnusableModel(f"{entry.path.name} is being made by another process. Try again later.") from None
        except OSError as error:
            raise UnusableModel(f"{entry.path} cannot be removed: {error.strerror}. Check its permissions.") from error

    @contextmanager
    def locked(self, key: str, on_progress: OnProgress) -> Iterator[Path]:
        """Lock the folder of a key and yield it: empty, unless the entry is complete.

        Waits while another process or thread makes the entry. Removes incomplete entries of killed processes.

        Raises:
            UnusableModel: ``on_progress`` returned False, or the folder cannot be written.
        """
        folder = self.folder / key
        try:
            make_own_folder(self.folder)
            make_private_folder(self.folder / _LOCKS)
            lock = self._lock(key)
            while True:
                try:
                    lock.acquire(timeout=_POLL_S)
                except Timeout:
                    if not on_progress(Progress("waiting for another process that converts it", 0.0)):
                        raise UnusableModel("The conversion was given up.") from None
                else:
                    break
        except OSError as error:
            raise UnusableModel(
                f"{self.folder} cannot be written: {error.strerror}. Converted models are kept there: make it "
                "writable, or set XDG_CACHE_HOME to another folder."
            ) from error
        try:
            self._remove_incomplete(key)
            if _read_entry(folder) is None:
                remove_tree(folder)
                make_private_folder(folder)
            yield folder
        finally:
            if _read_entry(folder) is None:
                remove_tree(folder)
            lock.release()

    def complete(self, folder: Path, made: Path, *, name: str, source: str, label: str) -> Entry:
        """Complete an entry: name the file ``made`` in ``folder``, and write the entry's note."""
        path = folder / name
        with made.open("rb") as file:
            os.fsync(file.fileno())
        close_to_others(made)
        made.replace(path)
        note = {"file": name, "source": source, "label": label, "made_at": time.time()}
        write_private(folder / _NOTE, json.dumps(note).encode())
        entry = _read_entry(folder)
        assert entry is not None
        return entry

    def _remove_incomplete(self, key: str) -> None:
        """Remove incomplete entries, often gigabytes, that no process is making."""
        for folder in self.folder.iterdir():
            if folder.name in (key, _LOCKS) or not folder.is_dir() or _read_entry(folder) is not None:
                continue
            with suppress(Timeout, OSError), self._lock(folder.name, timeout_s=0):
                # Read again under the lock: another process may have completed it.
                if _read_entry(folder) is None:
                    shutil.rmtree(folder)

    def _lock(self, key: str, timeout_s: float = -1) -> FileLock:
        return FileLock(self.folder / _LOCKS / f"{key}.lock", timeout=timeout_s, mode=FILE_MODE)


def _read_entry(folder: Path) -> Entry | None:
    """Return the entry in a folder; None if there is no complete one."""
    note_path = folder / _NOTE
    try:
        note = json.loads(read_private(note_path))
        path = folder / Path(note["file"]).name
        if not (is_ours(folder) and is_ours(path)):
            logger.warning("The converted model %s is not used: it belongs to another user", path)
            return None
        return Entry(
            key=folder.name,
            path=path,
            source=str(note["source"]),
            label=str(note["label"]),
            size_bytes=path.stat().st_size,
            used_at=note_path.stat().st_mtime,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
