"""Finds the repositories in the cache of huggingface_hub by its layout, without importing huggingface_hub.

A repository is ``models--<org>--<name>/`` with ``refs/<revision>``, which holds a commit, and ``snapshots/<commit>/``,
whose files are links to ``blobs/``. Source: huggingface_hub, docs/guides/manage-cache and constants.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.config.bounded_read import NotReadable, read_regular
from modelyard.system.typed_paths import expanded, is_folder

_PREFIX: Final = "models--"
_MAX_REF_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository in the cache: its name, ``org/name``, and the folder with the files of one commit."""

    repo: str
    folder: Path


def hub_cache_folder(home: Path, environment: Mapping[str, str]) -> Path:
    """Return the cache folder that huggingface_hub would use; it need not exist."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := environment.get(variable):
            return expanded(named)
    if named := environment.get("HF_HOME"):
        return expanded(named) / "hub"
    cache = environment.get("XDG_CACHE_HOME")
    return (expanded(cache) if cache else home / ".cache") / "huggingface" / "hub"


def hub_snapshots(folder: Path) -> Iterator[Snapshot]:
    """Yield the repositories of models in a cache folder, sorted by name: of each, its main branch.

    Where the main branch was not downloaded, it is the snapshot that was made last.

    Raises:
        OSError: the folder cannot be listed.
    """
    for repository in sorted(folder.iterdir()):
        if not repository.name.startswith(_PREFIX):
            continue
        with suppress(OSError):  # a repository that is deleted meanwhile, or of another user
            if (snapshot := _snapshot(repository)) is not None:
                yield Snapshot(repository.name.removeprefix(_PREFIX).replace("--", "/", 1), snapshot)


def _snapshot(repository: Path) -> Path | None:
    with suppress(OSError, NotReadable, UnicodeDecodeError):
        commit = read_regular(repository / "refs" / "main", _MAX_REF_BYTES).decode().strip()
        if commit and "/" not in commit and is_folder(main := repository / "snapshots" / commit):
            return main
    if not is_folder(repository / "snapshots"):
        return None
    made = [(folder.stat().st_mtime, folder) for folder in (repository / "snapshots").iterdir() if folder.is_dir()]
    return max(made)[1] if made else None
