"""Repositories of the hub, through huggingface_hub with its cache, tokens, offline mode and resumed downloads."""

from __future__ import annotations

import glob
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from modelyard.errors import RepositoryUnavailable, UnusableModel
from modelyard.hub.sources.disk import check_disk_space
from modelyard.hub.sources.folder import list_files
from modelyard.hub.sources.hub_id import DEFAULT_REVISION, HubId
from modelyard.hub.sources.listing import ListedFile, Listing, OnProgress, Progress

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

logger = logging.getLogger(__name__)

LISTING_TIMEOUT_S: Final = 15.0
DOWNLOADS_AT_ONCE: Final = 4
_POLL_S: Final = 0.2
_BLOCK_BYTES: Final = 2**20
_SEARCH_S: Final = 15.0


class Hub:
    """The hub, accessed with one token and cache.

    Args:
        cache: the cache folder; None: the cache that huggingface_hub uses (HF_HUB_CACHE, HF_HOME).
        token: a token; None: the token that the user has logged in with; False: no token.
        endpoint: URL of the hub; None: the endpoint that huggingface_hub uses (HF_ENDPOINT).
        is_offline: whether the cache alone is used.
    """

    def __init__(
        self,
        cache: Path | None = None,
        token: str | bool | None = None,
        endpoint: str | None = None,
        *,
        is_offline: bool = False,
    ) -> None:
        self._cache, self._token, self._endpoint, self._is_offline = cache, token, endpoint, is_offline

    def offline(self) -> Hub:
        """Return the hub as far as it is on this machine: nothing is fetched, nor asked for."""
        return Hub(self._cache, self._token, self._endpoint, is_offline=True)

    def list(self, hub_id: HubId) -> Listing:
        """Return the files of a repository: those on the hub, or those in the cache if the hub is unavailable.

        Raises:
            RepositoryUnavailable: neither has the repository; the message contains the reason and a remedy.
        """
        try:
            info = self._model_info(hub_id)
        except RepositoryUnavailable as unavailable:
            cached = self._cached_listing(hub_id, unavailable)
            if cached is None:
                raise
            return cached
        folder = self._snapshot(hub_id.repo, info.sha or "")
        files = (
            ListedFile(file.rfilename, file.size, folder is not None and (folder / file.rfilename).is_file())
            for file in info.siblings or []
        )
        return Listing(
            source=str(hub_id),
            files=tuple(sorted(files, key=lambda file: file.name)),
            folder=folder,
            hub_id=hub_id,
            commit=info.sha or "",
            base_models=_base_models(info),
        )

    def search(self, words: str, limit: int) -> Sequence[tuple[str, int]]:
        """Return repositories with models in GGUF that the words find, the most downloaded first, with their downloads.

        Raises:
            RepositoryUnavailable: the hub cannot be asked.
        """
        from huggingface_hub import get_session, get_token
        from huggingface_hub.constants import ENDPOINT

        if self._is_offline:
            raise RepositoryUnavailable("offline", "The hub is searched online only. Unset HF_HUB_OFFLINE.")
        hub = self._endpoint or ENDPOINT
        token = self._token if isinstance(self._token, str) else None if self._token is False else get_token()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        wanted: dict[str, str | int] = {"search": words, "filter": "gguf", "sort": "downloads", "limit": limit}
        try:
            # HfApi.list_models would try again for half a minute, and print each attempt.
            answer = get_session().get(f"{hub}/api/models", params=wanted, headers=headers, timeout=_SEARCH_S)
            answer.raise_for_status()
        except Exception as failure:
            problem = _explain(HubId(words), failure, self._endpoint)
            if problem is None:
                raise
            if problem.why == "unreachable":
                problem = RepositoryUnavailable(
                    problem.why, f"{hub} cannot be searched: {failure}. Check the network and the proxy settings."
                )
            raise problem from failure
        try:
            return [(str(model["id"]), int(model.get("downloads") or 0)) for model in answer.json()]
        except (AttributeError, KeyError, TypeError, ValueError) as failure:
            raise RepositoryUnavailable("unreachable", f"{hub} answers a search with no list of models.") from failure

    def fetch(self, listing: Listing, names: Sequence[str], on_progress: OnProgress) -> Path:
        """Download files of a repository that are not on this machine yet, and return their folder.

        A broken connection is resumed where it ended. A file gets its name when it is complete; huggingface_hub
        removes incomplete files.

        Raises:
            RepositoryUnavailable: the files cannot be downloaded; the message contains the reason and a remedy.
            UnusableModel: the disk has no room for the files, or ``on_progress`` returned False.
        """
        missing = listing.missing(names)
        if not missing:
            assert listing.folder is not None
            return listing.folder
        assert listing.hub_id is not None
        transfer = _Transfer(listing.size_of(missing))
        self._check_room(listing, transfer.total_bytes)
        while True:
            problem = self._attempt(listing.hub_id, names, transfer, on_progress)
            if isinstance(problem, Path):
                break
            # huggingface_hub resumes by itself, but fails when the connection broke a few times. The loop ends with an
            # attempt that transferred nothing.
            if problem.why != "unreachable" or not transfer.has_moved:
                raise problem
            logger.info("The download of %s is resumed after: %s", listing.source, problem)
        if absent := [name for name in names if not (problem / name).is_file()]:
            raise UnusableModel(
                f"'{listing.source}' has changed while it was downloaded: {absent[0]} is no longer there. Try again."
            )
        return problem

    @contextmanager
    def open(self, listing: Listing, name: str) -> Iterator[BinaryIO]:
        """Open a file of a repository remotely: only the ranges that are read are transferred.

        Raises:
            RepositoryUnavailable: the file cannot be read.
        """
        assert listing.hub_id is not None
        if self._is_offline:
            raise _not_here(listing.hub_id)
        from huggingface_hub import HfFileSystem

        try:
            files = HfFileSystem(endpoint=self._endpoint, token=self._token, skip_instance_cache=True)
            path = f"{listing.hub_id.repo}@{listing.commit}/{name}"
            with files.open(path, "rb", block_size=_BLOCK_BYTES) as file:
                yield cast("BinaryIO", file)
        except UnusableModel:
            raise
        except Exception as failure:
            problem = _explain(listing.hub_id, failure, self._endpoint)
            if problem is None:
                raise
            raise problem from failure

    def read(self, listing: Listing, name: str, max_bytes: int) -> bytes:
        """Return at most ``max_bytes`` of a small file, from this machine or from the hub.

        Raises:
            UnusableModel: the file cannot be read.
        """
        if listing.folder is not None and not listing.missing((name,)):
            try:
                with (listing.folder / name).open("rb") as file:
                    return file.read(max_bytes)
            except OSError as error:
                raise UnusableModel(f"{listing.folder / name} cannot be read: {error.strerror}.") from error
        with self.open(listing, name) as remote:
            return remote.read(max_bytes)

    def _attempt(
        self, hub_id: HubId, names: Sequence[str], transfer: _Transfer, on_progress: OnProgress
    ) -> Path | RepositoryUnavailable:
        """Make one attempt to download files; return their folder, or why the attempt failed.

        It runs on a thread of its own, so that it can be cancelled while it waits for the network or for another
        process that downloads the same file.
        """
        from huggingface_hub import snapshot_download

        outcome: Future[Path] = Future()

        def download() -> None:
            try:
                folder = snapshot_download(
                    hub_id.repo,
                    revision=hub_id.revision,
                    cache_dir=self._cache,
                    token=self._token,
                    endpoint=self._endpoint,
                    allow_patterns=[glob.escape(name) for name in names],
                    max_workers=DOWNLOADS_AT_ONCE,
                    tqdm_class=transfer.bar_class(),
                )
                outcome.set_result(Path(folder))
            except BaseException as failure:  # noqa: BLE001 (raised on the thread that waits for the outcome)
                outcome.set_exception(failure)

        transfer.begin_attempt()
        threading.Thread(target=download, name=f"download {hub_id}", daemon=True).start()
        while not outcome.done():
            wait((outcome,), timeout=_POLL_S)
            if not on_progress(Progress("downloading", transfer.fraction)):
                transfer.is_cancelled = True
                raise UnusableModel("The download was given up; files that are complete are kept.")
        failure = outcome.exception()
        if failure is None:
            return outcome.result()
        problem = _explain(hub_id, failure, self._endpoint)
        if problem is None:
            raise failure
        problem.__cause__ = failure
        return problem

    def _check_room(self, listing: Listing, needed_bytes: int) -> None:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = self._cache or Path(HF_HUB_CACHE)
        check_disk_space(cache, needed_bytes, f"'{listing.source}' cannot be downloaded")

    def _model_info(self, hub_id: HubId) -> ModelInfo:
        if self._is_offline:
            raise _not_here(hub_id)
        # Imported here, because importing huggingface_hub takes longer than the rest of Modelyard together.
        from huggingface_hub import HfApi

        try:
            return HfApi(endpoint=self._endpoint, token=self._token).model_info(
                hub_id.repo, revision=hub_id.revision, files_metadata=True, timeout=LISTING_TIMEOUT_S
            )
        except Exception as failure:
            problem = _explain(hub_id, failure, self._endpoint)
            if problem is None:
                raise
            raise problem from failure

    def _cached_listing(self, hub_id: HubId, unavailable: RepositoryUnavailable) -> Listing | None:
        folder = self._snapshot(hub_id.repo, hub_id.revision)
        if folder is None:
            return None
        files = tuple(ListedFile(name, (folder / name).stat().st_size, is_here=True) for name in list_files(folder))
        if not files:
            return None
        return Listing(
            source=str(hub_id),
            files=files,
            folder=folder,
            hub_id=hub_id,
            commit=folder.name,
            note=f"'{hub_id}' is taken from the cache, which may not have all of its files: {unavailable}",
        )

    def _snapshot(self, repo: str, revision: str) -> Path | None:
        """Return the folder of that revision in the cache; None if the cache has nothing of it."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(
                    repo,
                    revision=revision or DEFAULT_REVISION,
                    cache_dir=self._cache,
                    local_files_only=True,
                    # Requires no file in particular: a cache with one file of a repository may have the needed one.
                    allow_patterns=[],
                )
            )
        except (LocalEntryNotFoundError, HFValidationError):
            return None


class _DownloadCancelled(BaseException):
    """Ends a download from inside. Not an Exception, which huggingface_hub would treat as a failure and retry."""


class _Transfer:
    """The progress of the downloads of one snapshot, counted by huggingface_hub's progress bars."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.is_cancelled = False
        self._lock = threading.Lock()
        self._done_bytes = self._before_bytes = 0

    @property
    def fraction(self) -> float:
        """The transferred part of the download, 0 to 1."""
        return min(1.0, self._done_bytes / self.total_bytes) if self.total_bytes else 0.0

    @property
    def has_moved(self) -> bool:
        """Whether this attempt transferred more than all attempts before it."""
        return self._done_bytes > self._before_bytes

    def begin_attempt(self) -> None:
        """Start counting another attempt."""
        self._before_bytes, self._done_bytes = max(self._before_bytes, self._done_bytes), 0

    def bar_class(self) -> Any:
        """Return a class of progress bars for huggingface_hub that counts bytes and draws nothing."""
        from tqdm import tqdm

        transfer = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                options.pop("name", None)
                # huggingface_hub has one bar for bytes from the network and one for bytes on disk: the latter counts.
                self._counts = str(options.get("desc", "")).startswith("Reconstructing")
                super().__init__(*arguments, **{**options, "disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                if transfer.is_cancelled:
                    raise _DownloadCancelled
                if self._counts:
                    with transfer._lock:
                        transfer._done_bytes += int(n or 0)
                return None

        return Bar


def _not_here(hub_id: HubId) -> RepositoryUnavailable:
    return RepositoryUnavailable("offline", f"'{hub_id}' is not on this machine yet.")


def _explain(hub_id: HubId, failure: BaseException, endpoint: str | None) -> RepositoryUnavailable | None:
    """Return the error of a repository that is unavailable, with a remedy; None for failures of another kind."""
    import httpx2
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    if isinstance(failure, errors.LocalEntryNotFoundError) and isinstance(failure.__cause__, Exception):
        failure = failure.__cause__
    repo, hub = hub_id.repo, endpoint or ENDPOINT
    if isinstance(failure, errors.HFValidationError):
        return RepositoryUnavailable("missing", f"'{repo}' is not a hub id: {failure}. It must be org/name.")
    if isinstance(failure, errors.GatedRepoError):
        return RepositoryUnavailable(
            "gated",
            f"'{repo}' is gated: its terms must be accepted. Accept them at {hub}/{repo}, and log in with "
            "`hf auth login`, or set HF_TOKEN to a token that may read it.",
        )
    if isinstance(failure, errors.RepositoryNotFoundError):
        return RepositoryUnavailable(
            "missing",
            f"'{repo}' does not exist at {hub}, or is private. Check the spelling; for a private one, log in with "
            "`hf auth login`, or set HF_TOKEN to a token that may read it.",
        )
    if isinstance(failure, errors.RevisionNotFoundError):
        return RepositoryUnavailable(
            "missing", f"'{repo}' has no revision '{hub_id.revision}'. Name one of its branches, tags or commits."
        )
    if isinstance(failure, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        revision = "" if hub_id.revision == DEFAULT_REVISION else f" at revision '{hub_id.revision}'"
        return RepositoryUnavailable(
            "offline",
            f"'{repo}'{revision} is not in the local Hugging Face cache, and offline mode forbids to download it. "
            "Unset HF_HUB_OFFLINE, or name a file or folder that is on this machine.",
        )
    status = getattr(getattr(failure, "response", None), "status_code", None)
    if status in (401, 403):
        return RepositoryUnavailable(
            "gated", f"The hub refuses '{repo}' (status {status}). Log in with `hf auth login`, or check the token."
        )
    if isinstance(failure, OSError | httpx2.HTTPError):
        return RepositoryUnavailable(
            "unreachable",
            f"'{repo}' cannot be fetched from {hub}: {failure or type(failure).__name__}. Check the network, the "
            "proxy settings and the free disk space; with HF_HUB_OFFLINE=1 the cache alone is used.",
        )
    return None


def _base_models(info: ModelInfo) -> tuple[str, ...]:
    """Return the base models of a repository: ``base_model`` of its card, and the tags that the hub derives."""
    declared = (info.card_data.get("base_model") if info.card_data is not None else None) or []
    names = [declared] if isinstance(declared, str) else [str(name) for name in declared]
    names += [tag.rsplit(":", 1)[1] for tag in info.tags or [] if tag.startswith("base_model:")]
    return tuple(dict.fromkeys(names))
