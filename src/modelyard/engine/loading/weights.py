"""Weights that several engines share: loaded once, freed with the last."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.engine.llama import Weights
from modelyard.errors import UnusableModel
from modelyard.system.file_digest import contents_digest, samples_digest
from modelyard.system.file_stamp import FileStamp, stamps_of
from modelyard.system.malloc import trim_heap

# How often an engine that waits for another's load looks whether it is to stop.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class WeightsKey:
    """What tells weights apart. Engines of equal keys share them.

    Attributes:
        paths: of the file, or of all shards in order, without symbolic links.
        gpu_layers: layers on an accelerator; 0 for none, -1 for all.
        contents: digest of the files: one that was replaced since is another.
        split: of the layers on accelerators, how many each has; () as llama.cpp divides them.
        stamps: the files: one that was written over since, if only in its middle, is another.
        samples: digest of pages from all over the files.
    """

    paths: tuple[Path, ...]
    gpu_layers: int
    contents: str
    split: tuple[int, ...] = ()
    stamps: tuple[FileStamp, ...] = ()
    samples: str = ""

    @classmethod
    def of(cls, paths: Sequence[Path], gpu_layers: int, split: tuple[int, ...] = ()) -> WeightsKey:
        """The key of the files that are there now.

        Raises:
            UnusableModel: one of them cannot be read.
        """
        try:
            resolved = tuple(path.resolve() for path in paths)
            # First: a change while the digest is made is then met by the next look.
            stamps = stamps_of(resolved)
            return cls(resolved, gpu_layers, contents_digest(paths), split, stamps, samples_digest(paths))
        except OSError as error:
            raise UnusableModel(f"{Path(error.filename).name} cannot be read: {error.strerror}.") from error

    @property
    def lasting_contents(self) -> str:
        """Names the contents for what outlives this process, also when the files have moved."""
        return f"{self.contents} {self.samples}"

    def __str__(self) -> str:
        facts = "\0".join(
            (*map(str, self.paths), str(self.gpu_layers), str(self.split), self.contents, *map(str, self.stamps))
        )
        return hashlib.blake2b(facts.encode(errors="surrogateescape"), digest_size=16).hexdigest()


@dataclass(slots=True)
class _Shared:
    """Weights and how many use them; None while the first of them loads."""

    weights: Weights | None = None
    users: int = 0
    fraction: float = 0.0


class ParkedWeights:
    """Weights that stay in memory while no engine uses them, until they are released."""

    def __init__(self, pool: WeightsPool, keys: Sequence[WeightsKey]) -> None:
        self._pool, self._keys = pool, keys

    def release(self) -> None:
        """Give them up, once: those that no engine uses are freed, which takes as long as unmapping them."""
        were_freed = [self._pool.release(key) for key in self._keys]
        if any(were_freed):
            trim_heap()


class WeightsPool:
    """The weights that the engines of one owner hold. Every method may be called on any thread.

    Args:
        are_repacked: whether llama.cpp makes copies of them that its kernels like better.
    """

    def __init__(self, *, are_repacked: bool = True) -> None:
        self._are_repacked = are_repacked
        self._shared: dict[WeightsKey, _Shared] = {}
        # By contents: models come back.
        self._end_tokens: dict[str, frozenset[int]] = {}
        self._change = threading.Condition()

    def acquire(self, key: WeightsKey, on_progress: Callable[[float], bool]) -> Weights:
        """The weights of ``key``, loaded unless another engine has them, or waited for while it loads them.

        Each ``acquire`` that returns is to be followed by a ``release``. on_progress is called with the part read, 0 to
        1, at least ten times a second while it waits for another's load; returning False gives up.

        Raises:
            UnusableModel: they cannot be loaded, or ``on_progress`` returned False.
        """
        shared = self._share(key, on_progress)
        if shared.weights is not None:
            return shared.weights

        def report(fraction: float) -> bool:
            shared.fraction = fraction
            return on_progress(fraction)

        try:
            weights = Weights(
                key.paths,
                gpu_layers=key.gpu_layers,
                split=key.split,
                on_progress=report,
                end_tokens=self._end_tokens.get(key.contents),
                are_repacked=self._are_repacked,
            )
        except BaseException:
            with self._change:
                # Those who wait try themselves: this load may only have been given up.
                del self._shared[key]
                self._change.notify_all()
            raise
        with self._change:
            shared.weights, shared.users = weights, 1
            self._end_tokens[key.contents] = weights.end_tokens
            self._change.notify_all()
        return weights

    def _share(self, key: WeightsKey, on_progress: Callable[[float], bool]) -> _Shared:
        """What others have of ``key``, once it is loaded; or a new entry, to be loaded by the caller."""
        while True:
            with self._change:
                shared = self._shared.get(key)
                if shared is None:
                    shared = self._shared[key] = _Shared()
                    return shared
                if shared.weights is None:
                    self._change.wait(_LOOK_S)
                if shared.weights is not None and self._shared.get(key) is shared:
                    shared.users += 1
                    return shared
                fraction = shared.fraction
            if not on_progress(fraction):
                raise UnusableModel("The load was given up.")

    def park(self, keys: Sequence[WeightsKey]) -> ParkedWeights:
        """Hold the weights of ``keys``, which an engine has acquired, beyond its end."""
        with self._change:
            for key in keys:
                self._shared[key].users += 1
        return ParkedWeights(self, keys)

    def release(self, key: WeightsKey) -> bool:
        """An engine's context on the weights of ``key`` is freed; whether that was the last, and freed them too."""
        with self._change:
            shared = self._shared[key]
            shared.users -= 1
            if shared.users:
                return False
            del self._shared[key]
        assert shared.weights is not None
        shared.weights.free()
        return True

    def users(self, key: WeightsKey) -> int:
        """How many engines hold the weights of ``key``."""
        with self._change:
            shared = self._shared.get(key)
            return 0 if shared is None else shared.users
