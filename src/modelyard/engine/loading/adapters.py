"""The adapters that one engine holds beside its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from modelyard.engine.kv.adapter_set import AdapterSet
from modelyard.engine.llama import Adapter, ControlVector, Model
from modelyard.errors import ModelNotFound, UnusableModel
from modelyard.protocol.adapters import AdapterFile, AdapterUse
from modelyard.system.file_stamp import first_changed

# Sets that are remembered: requests may ask for any scales.
_MAX_SETS: Final = 256


class LoadedAdapters:
    """Adapters by name and by content. They belong to the engine's thread.

    Args:
        name: id of the model, for messages.
        model: the weights that they change.
    """

    def __init__(self, name: str, model: Model) -> None:
        self._name, self._model = name, model
        self._digests: dict[str, str] = {}
        self._loaded: dict[str, Adapter | ControlVector] = {}
        self._sets: dict[AdapterSet, Sequence[tuple[Adapter | ControlVector, float]]] = {}

    @property
    def allocated_bytes(self) -> int:
        """Memory of their matrices."""
        return sum(adapter.allocated_bytes for adapter in self._loaded.values())

    def hold(self, files: Sequence[AdapterFile]) -> None:
        """Hold these adapters from now on. Those that are not among them stay loaded until ``free_unused``.

        Raises:
            UnusableModel: one of them was changed since it was checked, or llama.cpp cannot load it; the adapters stay
                as they were.
        """
        fresh: dict[str, Adapter | ControlVector] = {}
        try:
            for file in files:
                if file.digest not in self._loaded and file.digest not in fresh:
                    _check_unchanged(file)
                    fresh[file.digest] = self._load(file)
        except BaseException:
            for adapter in fresh.values():
                adapter.free()
            raise
        self._loaded |= fresh
        self._digests = {file.name: file.digest for file in files}

    def free_unused(self, used: Iterable[AdapterSet]) -> None:
        """Free the adapters that have no name any more, and are in none of the sets ``used``."""
        kept = {digest for adapters in used for digest, _ in adapters} | set(self._digests.values())
        for digest in self._loaded.keys() - kept:
            self._loaded.pop(digest).free()
        self._sets.clear()

    def find(self, uses: Iterable[AdapterUse]) -> AdapterSet:
        """Return the adapters that a request uses. Scales of 0 are left out, and those of equal adapters added.

        Raises:
            ModelNotFound: there is none of that name any more.
        """
        scales: dict[str, float] = {}
        for use in uses:
            digest = self._digests.get(use.name)
            if digest is None:
                raise ModelNotFound(f"{self._name}::{use.name}", [f"{self._name}::{name}" for name in self._digests])
            scales[digest] = scales.get(digest, 0.0) + use.scale
        return tuple(sorted((digest, scale) for digest, scale in scales.items() if scale and math.isfinite(scale)))

    def holds(self, adapters: AdapterSet) -> bool:
        """Whether all of these adapters are loaded."""
        return all(digest in self._loaded for digest, _ in adapters)

    def loaded(self, adapters: AdapterSet) -> Sequence[tuple[Adapter | ControlVector, float]]:
        """Return the adapters of a set with their scales."""
        if not adapters:
            return ()
        found = self._sets.get(adapters)
        if found is None:
            if len(self._sets) >= _MAX_SETS:
                self._sets.clear()
            found = self._sets[adapters] = tuple((self._loaded[digest], scale) for digest, scale in adapters)
        return found

    def _load(self, file: AdapterFile) -> Adapter | ControlVector:
        return ControlVector(self._model, file.path, file.layers) if file.is_vector else Adapter(self._model, file.path)

    def free(self) -> None:
        """Free all of them. No context may compute any more."""
        for adapter in self._loaded.values():
            adapter.free()
        self._loaded.clear()
        self._digests.clear()
        self._sets.clear()


def _check_unchanged(file: AdapterFile) -> None:
    """Refuse a file that was not checked as it is: llama.cpp ends the process on some."""
    if file.stamp is not None and first_changed([file.stamp]) is not None:
        raise UnusableModel(
            f"The adapter {file.path.name} was changed while it was being loaded. Try again when it is complete."
        )
