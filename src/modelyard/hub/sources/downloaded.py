"""Repositories that were downloaded: what they take in the cache of huggingface_hub, which other programs use too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from modelyard.errors import UnusableModel

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo

# Of a lock file that no process holds, how long it may take to find that out.
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Download:
    """A model repository in the cache.

    Attributes:
        size_bytes: on disk, with what downloads left that were broken off.
        partial_bytes: of those.
        used_at: in seconds since the epoch.
    """

    repo: str
    size_bytes: int
    partial_bytes: int
    used_at: float


class Downloads:
    """The model repositories in a cache; None: the one that huggingface_hub uses (HF_HUB_CACHE, HF_HOME)."""

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache

    @property
    def folder(self) -> Path:
        """Where they are; it need not exist yet."""
        # Imported here: it takes longer than the rest of Modelyard together.
        from huggingface_hub.constants import HF_HUB_CACHE

        return self._cache or Path(HF_HUB_CACHE)

    def list(self) -> list[Download]:
        """All of them, the one that was used last first."""
        scan = self._scan()
        if scan is None:
            return []
        whole = {repo.repo_id: (repo.size_on_disk, repo.last_accessed) for repo in _models(scan)}
        partial: dict[str, list[os.stat_result]] = {}
        for path in (file.file_path for file in scan.incomplete_files):
            kind, _, name = path.parent.parent.name.partition("--")
            with suppress(OSError):  # it may be complete by now
                partial.setdefault(name.replace("--", "/") if kind == "models" else "", []).append(path.stat())
        partial.pop("", None)
        found = []
        for repo in {**whole, **partial}:
            size, used = whole.get(repo, (0, 0.0))
            left = sum(file.st_size for file in partial.get(repo, ()))
            last = max((used, *(file.st_mtime for file in partial.get(repo, ()))))
            found.append(Download(repo, size + left, left, last))
        return sorted(found, key=lambda download: -download.used_at)

    def delete(self, repo: str) -> None:
        """Remove a repository with all of its revisions; engines that have its weights mapped keep them.

        Raises:
            UnusableModel: it is being downloaded, or cannot be removed.
        """
        if self._is_being_downloaded(repo):
            raise UnusableModel(f"'{repo}' is being downloaded by another process. Try again later.")
        scan = self._scan()
        folder = self.folder / _folder_name(repo)
        if scan is not None:
            revisions = [
                rev.commit_hash for cached in _models(scan) if cached.repo_id == repo for rev in cached.revisions
            ]
            scan.delete_revisions(*revisions).execute()
        # What was broken off before a first revision was there; and what it cannot remove, huggingface_hub only logs.
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise UnusableModel(f"{folder} cannot be removed. Check its permissions.")

    def _scan(self) -> HFCacheInfo | None:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound

        try:
            return scan_cache_dir(self.folder)
        except CacheNotFound:
            return None

    def _is_being_downloaded(self, repo: str) -> bool:
        """Whether somebody holds one of its locks. Source: huggingface_hub, file_download.py, lock_path."""
        folder = self.folder / ".locks" / _folder_name(repo)
        for path in folder.glob("*.lock"):
            try:
                with FileLock(path, timeout=_LOOK_S):
                    pass
            except Timeout:
                return True
            except OSError:
                # Not ours to look at; whether its files can be removed shows.
                continue
        return False


def _models(scan: HFCacheInfo) -> Iterator[CachedRepoInfo]:
    """The cache has data sets too."""
    return (repo for repo in scan.repos if repo.repo_type == "model")


def _folder_name(repo: str) -> str:
    """Source: huggingface_hub, file_download.py, repo_folder_name."""
    return f"models--{repo.replace('/', '--')}"
