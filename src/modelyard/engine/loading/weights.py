"""Weights that several engines share: loaded once, freed with the last."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from modelyard.engine.llama import Weights
from modelyard.engine.loading.read_ahead import ReadAhead
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.system.file_digest import contents_digest, samples_digest
from modelyard.system.file_stamp import FileStamp, stamps_of
from modelyard.system.malloc import trim_heap

# Interval at which an engine that waits for another engine's load checks whether it must stop.
_POLL_S = 0.1


_Stamps: TypeAlias = tuple[FileStamp, ...]

_Digests: TypeAlias = tuple[str, str]
"""``contents`` and ``samples`` of a ``WeightsKey``."""


@dataclass(frozen=True, slots=True)
class WeightsKey:
    """Identifies weights: engines with equal keys share them.

    Attributes:
        paths: the file, or all shards in order, with symbolic links resolved.
        placement: where they are, with names of devices that exist.
        contents: digest of sizes, beginnings and ends of the files; differs where a file was replaced.
        stamps: states of the files; differ where a file was written over, even if only in its middle.
        samples: digest of pages from all over the files.
    """

    paths: tuple[Path, ...]
    placement: Placement
    contents: str
    stamps: tuple[FileStamp, ...] = ()
    samples: str = ""

    @classmethod
    def of(
        cls, paths: Sequence[Path], placement: Placement = ON_HOST, digests: dict[_Stamps, _Digests] | None = None
    ) -> WeightsKey:
        """Return the key of the files as they are now.

        Args:
            paths: of the file, or of all shards in order.
            placement: where the weights are to be, with names of devices that exist.
            digests: known ones, by the stamps of the files; new ones are added. To compute them takes 9 ms.

        Raises:
            UnusableModel: one of them cannot be read.
        """
        try:
            resolved = tuple(path.resolve() for path in paths)
            # Take the stamps first: a change while the digest is computed is then found by the next check.
            stamps = stamps_of(resolved)
            found = None if digests is None else digests.get(stamps)
            if found is None:
                found = contents_digest(paths), samples_digest(paths)
                if digests is not None:
                    digests[stamps] = found
            contents, samples = found
            return cls(resolved, placement.of_weights, contents, stamps, samples)
        except OSError as error:
            raise UnusableModel(f"{Path(error.filename).name} cannot be read: {error.strerror}.") from error

    @property
    def lasting_contents(self) -> str:
        """Names the contents independently of this process and of where the files are."""
        return f"{self.contents} {self.samples}"

    def __str__(self) -> str:
        facts = "\0".join((*map(str, self.paths), str(self.placement), self.contents, *map(str, self.stamps)))
        return hashlib.blake2b(facts.encode(errors="surrogateescape"), digest_size=16).hexdigest()


@dataclass(slots=True)
class _SharedWeights:
    """Weights and the number of their users; ``weights`` is None while they are loaded.

    Attributes:
        users: engines, and those that keep the weights in memory without computing.
        keepers: those of them that do not compute.
        fraction: part that was read.
        is_resting: whether their pages were given back since an engine computed on them.
    """

    weights: Weights | None = None
    users: int = 0
    keepers: int = 0
    fraction: float = 0.0
    is_resting: bool = False


class ParkedWeights:
    """Weights that stay loaded while no engine uses them, until they are released.

    What was allocated for them stays in memory. Pages of their files are given back, and stay in the page cache.
    """

    def __init__(self, pool: WeightsPool, keys: Sequence[WeightsKey]) -> None:
        self._pool, self._keys = pool, keys

    def release(self) -> None:
        """Release the weights, once: those that no engine uses are freed, which takes as long as unmapping them."""
        were_freed = [self._pool.release(key, was_kept=True) for key in self._keys]
        if any(were_freed):
            trim_heap()


class WeightsPool:
    """The weights that several engines share. Every method may be called on any thread.

    Args:
        are_repacked: whether llama.cpp copies weights into layouts that its kernels prefer.
    """

    def __init__(self, *, are_repacked: bool = True) -> None:
        self._are_repacked = are_repacked
        self._shared: dict[WeightsKey, _SharedWeights] = {}
        # End tokens by contents, kept because models are loaded again.
        self._end_tokens: dict[str, frozenset[int]] = {}
        self._digests: dict[_Stamps, _Digests] = {}
        self._change = threading.Condition()

    def key_of(self, paths: Sequence[Path], placement: Placement) -> WeightsKey:
        """Return the key of the files as they are now; what an unchanged file contains is read once.

        Raises:
            UnusableModel: one of them cannot be read.
        """
        return WeightsKey.of(paths, placement, self._digests)

    def acquire(self, key: WeightsKey, on_progress: Callable[[float], bool]) -> Weights:
        """Return the weights of ``key``: load them, unless another engine holds or is loading them.

        Each ``acquire`` that returns must be followed by a ``release``. on_progress is called with the part read, 0 to
        1, at least ten times a second while another engine loads; returning False cancels.

        Raises:
            UnusableModel: they cannot be loaded, or ``on_progress`` returned False.
        """
        shared = self._entry(key, on_progress)
        if shared.weights is not None:
            self._wake(key, shared, on_progress)
            return shared.weights

        def report(fraction: float) -> bool:
            shared.fraction = fraction
            return on_progress(fraction)

        try:
            with ReadAhead(key.paths):
                weights = Weights(
                    key.paths,
                    placement=key.placement,
                    on_progress=report,
                    end_tokens=self._end_tokens.get(key.contents),
                    are_repacked=self._are_repacked,
                )
        except BaseException:
            with self._change:
                # Engines that wait load the weights themselves: this load may only have been cancelled.
                del self._shared[key]
                self._change.notify_all()
            raise
        with self._change:
            shared.weights, shared.users = weights, 1
            self._end_tokens[key.contents] = weights.end_tokens
            self._change.notify_all()
        return weights

    def _entry(self, key: WeightsKey, on_progress: Callable[[float], bool]) -> _SharedWeights:
        """Return the loaded entry of ``key``, waiting while another engine loads it; or a new one to be loaded."""
        while True:
            with self._change:
                shared = self._shared.get(key)
                if shared is None:
                    shared = self._shared[key] = _SharedWeights()
                    return shared
                if shared.weights is None:
                    self._change.wait(_POLL_S)
                if shared.weights is not None and self._shared.get(key) is shared:
                    shared.users += 1
                    return shared
                fraction = shared.fraction
            if not on_progress(fraction):
                raise UnusableModel("The load was given up.")

    def park(self, keys: Sequence[WeightsKey]) -> ParkedWeights:
        """Keep the weights of ``keys``, which an engine has acquired, in memory after the engine has released them."""
        with self._change:
            for key in keys:
                self._shared[key].users += 1
                self._shared[key].keepers += 1
        return ParkedWeights(self, keys)

    def release(self, key: WeightsKey, *, was_kept: bool = False) -> bool:
        """Release the weights of ``key`` after a context on them was freed; whether that freed the weights too.

        Where only those are left that keep them, pages of files that they were computed on are given back.

        Args:
            was_kept: whether they were only kept in memory.
        """
        with self._change:
            shared = self._shared[key]
            shared.keepers -= was_kept
            rests = not shared.is_resting and 0 < shared.keepers == shared.users - 1
            if not rests:
                return self._leave(key, shared)
            shared.is_resting = True
        # This user leaves when the pages are given back, so that the weights are not freed meanwhile.
        assert shared.weights is not None
        shared.weights.rest()
        with self._change:
            return self._leave(key, shared)

    def _leave(self, key: WeightsKey, shared: _SharedWeights) -> bool:
        """Remove a user, who holds the lock, and free the weights with the last; whether that was done."""
        shared.users -= 1
        if shared.users:
            return False
        del self._shared[key]
        assert shared.weights is not None
        shared.weights.free()
        return True

    def _wake(self, key: WeightsKey, shared: _SharedWeights, on_progress: Callable[[float], bool]) -> None:
        """Map again what was given back of weights that the caller has acquired.

        Raises:
            UnusableModel: ``on_progress`` returned False; the weights are released again.
        """
        with self._change:
            if not shared.is_resting:
                return
            shared.is_resting = False
        assert shared.weights is not None
        if not shared.weights.wake(on_progress):
            self.release(key)
            raise UnusableModel("The load was given up.")

    def users(self, key: WeightsKey) -> int:
        """Return how many engines hold the weights of ``key``."""
        with self._change:
            shared = self._shared.get(key)
            return 0 if shared is None else shared.users
