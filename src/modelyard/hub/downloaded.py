"""Repositories that were downloaded: what they take in the cache of huggingface_hub, which other programs use too."""

from __future__ import annotations

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
    """A model repository in the cache. used_at is in seconds since the epoch."""

    repo: str
    size_bytes: int
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
        return sorted(
            (Download(repo.repo_id, repo.size_on_disk, repo.last_accessed) for repo in self._repos()),
            key=lambda download: -download.used_at,
        )

    def delete(self, repo: str) -> None:
        """Remove a repository with all of its revisions; engines that have its weights mapped keep them.

        Raises:
            UnusableModel: it is being downloaded, or cannot be removed.
        """
        if self._is_being_downloaded(repo):
            raise UnusableModel(f"'{repo}' is being downloaded by another process. Try again later.")
        scan = self._scan()
        found = next((cached for cached in self._repos(scan) if cached.repo_id == repo), None)
        if scan is None or found is None:
            return
        scan.delete_revisions(*(revision.commit_hash for revision in found.revisions)).execute()
        # What it cannot remove, it only logs.
        if found.repo_path.exists():
            raise UnusableModel(f"{found.repo_path} cannot be removed. Check its permissions.")

    def _scan(self) -> HFCacheInfo | None:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound

        try:
            return scan_cache_dir(self.folder)
        except CacheNotFound:
            return None

    def _repos(self, scan: HFCacheInfo | None = None) -> tuple[CachedRepoInfo, ...]:
        scan = scan or self._scan()
        return () if scan is None else tuple(repo for repo in scan.repos if repo.repo_type == "model")

    def _is_being_downloaded(self, repo: str) -> bool:
        """Whether somebody holds one of its locks. Source: huggingface_hub, file_download.py, lock_path."""
        folder = self.folder / ".locks" / f"models--{repo.replace('/', '--')}"
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
