"""Downloaded repositories in the cache of huggingface_hub, which other programs share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from modelyard.errors import UnusableModel

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, CachedRevisionInfo, HFCacheInfo

# Time in which a lock file that no process holds is surely acquired.
_LOCK_TIMEOUT_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Download:
    """A model repository in the cache.

    Attributes:
        size_bytes: size on disk, with the files of interrupted downloads.
        partial_bytes: size of the files of interrupted downloads.
        used_at: time of the last use, in seconds since the epoch.
    """

    repo: str
    size_bytes: int
    partial_bytes: int
    used_at: float


class Downloads:
    """The model repositories in a cache folder; None: the cache that huggingface_hub uses (HF_HUB_CACHE, HF_HOME)."""

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache

    @property
    def folder(self) -> Path:
        """The cache folder; it need not exist yet."""
        # Imported here, because importing huggingface_hub takes longer than the rest of Modelyard together.
        from huggingface_hub.constants import HF_HUB_CACHE

        return self._cache or Path(HF_HUB_CACHE)

    def list(self) -> list[Download]:
        """Return all downloads, the most recently used first."""
        scan = self._scan()
        if scan is None:
            return []
        whole = {repo.repo_id: (repo.size_on_disk, repo.last_accessed) for repo in _models(scan)}
        partial: dict[str, list[os.stat_result]] = {}
        for path in (file.file_path for file in scan.incomplete_files):
            kind, _, name = path.parent.parent.name.partition("--")
            with suppress(OSError):  # the download may have completed since the scan
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
            UnusableModel: the repository is being downloaded, or cannot be removed.
        """
        if self._is_being_downloaded(repo):
            raise UnusableModel(f"'{repo}' is being downloaded by another process. Try again later.")
        scan = self._scan()
        folder = self.folder / _folder_name(repo)
        if scan is not None:
            revisions = [revision.commit_hash for revision in _revisions(scan, repo)]
            scan.delete_revisions(*revisions).execute()
        # Removes a download that was interrupted before its first revision. Files that huggingface_hub cannot remove,
        # it only logs.
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise UnusableModel(f"{folder} cannot be removed. Check its permissions.")

    def files(self, repo: str) -> Sequence[str]:
        """Return the names of the files that are downloaded of a repository, of any revision, with "/"."""
        scan = self._scan()
        return sorted(
            {
                file.file_path.relative_to(revision.snapshot_path).as_posix()
                for revision in _revisions(scan, repo)
                for file in revision.files
            }
        )

    def delete_files(self, repo: str, names: Collection[str]) -> int:
        """Remove files of a repository, of all of its revisions, and return the bytes that are free again.

        Contents that another file of the repository has, too, are kept.

        Raises:
            UnusableModel: the repository is being downloaded, or a file cannot be removed.
        """
        if self._is_being_downloaded(repo):
            raise UnusableModel(f"'{repo}' is being downloaded by another process. Try again later.")
        gone: dict[Path, int] = {}
        kept: set[Path] = set()
        try:
            for revision in _revisions(self._scan(), repo):
                for file in revision.files:
                    if file.file_path.relative_to(revision.snapshot_path).as_posix() in names:
                        gone[file.blob_path] = file.size_on_disk
                        file.file_path.unlink(missing_ok=True)
                    else:
                        kept.add(file.blob_path)
            for blob in gone.keys() - kept:
                blob.unlink(missing_ok=True)
        except OSError as error:
            raise UnusableModel(f"{error.filename} cannot be removed: {error.strerror}.") from error
        return sum(size for blob, size in gone.items() if blob not in kept)

    def _scan(self) -> HFCacheInfo | None:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound

        try:
            # Absolute, because the hub's client expands a "~", which fails for a user without a home folder.
            return scan_cache_dir(self.folder.absolute())
        except CacheNotFound:
            return None

    def _is_being_downloaded(self, repo: str) -> bool:
        """Whether a process holds a lock of the repository. Source: huggingface_hub, file_download.py, lock_path."""
        folder = self.folder / ".locks" / _folder_name(repo)
        for path in folder.glob("*.lock"):
            try:
                with FileLock(path, timeout=_LOCK_TIMEOUT_S):
                    pass
            except Timeout:
                return True
            except OSError:
                # A lock of another user; delete() reports files that it cannot remove.
                continue
        return False


def _revisions(scan: HFCacheInfo | None, repo: str) -> Iterator[CachedRevisionInfo]:
    if scan is not None:
        yield from (rev for cached in _models(scan) if cached.repo_id == repo for rev in cached.revisions)


def _models(scan: HFCacheInfo) -> Iterator[CachedRepoInfo]:
    """Return the repositories of models: the cache has data sets too."""
    return (repo for repo in scan.repos if repo.repo_type == "model")


def _folder_name(repo: str) -> str:
    """Return the name of a repository's folder. Source: huggingface_hub, file_download.py, repo_folder_name."""
    return f"models--{repo.replace('/', '--')}"
