"""The pages of a model's files in this process's memory, of which those stay that are computed on.

llama.cpp maps the files of a model, and copies those of their tensors that a kernel wants in another order, or that are
on a device. The pages that were copied are never read again, but count as memory of the process until they are given
back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from modelyard.system.file_mappings import (
    MappedRange,
    gaps_between,
    give_back,
    map_again,
    map_singly,
    mappings_of,
    pages_of,
)

# While a model is loaded, copied pages are given back each time so much more was read, so that no more than that is
# resident beside the weights.
STEP_BYTES: Final = 64 << 20

# Only where at least this part of the files is copied: what is computed on has to be mapped again.
MIN_COPIED_PART: Final = 0.5


class FilePages:
    """The pages of the files of one model.

    Args:
        paths: the file, or all shards.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._computed_on: Sequence[MappedRange] = ()
        self._paths = [path.resolve() for path in paths]
        self._loading: Sequence[MappedRange] | None = None
        self._next = 0.0

    def on_progress(self, fraction: float, copied_bytes: int) -> None:
        """Give back pages while llama.cpp copies tensors: to be called by its progress callback.

        Args:
            fraction: part of the tensors that was read.
            copied_bytes: size of all tensors that will be copied.
        """
        # At the end llama.cpp unmaps what it does not compute on, and other memory may have these addresses at once.
        if fraction >= 1 or fraction < self._next:
            return
        if self._loading is None:
            self._loading = self._own_mappings()
        size = sum(mapping.size for mapping in self._loading)
        if copied_bytes < max(STEP_BYTES, MIN_COPIED_PART * size):
            self._loading, self._next = (), 1.0
            return
        give_back(self._loading)
        self._next = fraction + STEP_BYTES / size if size else 1.0

    def keep(self, tensors: Collection[MappedRange]) -> int | None:
        """Give back all pages but those of ``tensors``, and return the bytes of the pages that stay.

        Args:
            tensors: of the loaded model, wherever they are. What lies between two of them in the same mapping is its
                own, and stays mapped as long as the model is loaded.

        Returns None where the files are not mapped, as far as the system shows it.
        """
        kept: list[MappedRange] = []
        for mapping in self._mappings():
            pages = pages_of(each for each in tensors if mapping.begin <= each.begin and each.end <= mapping.end)
            if (gaps := gaps_between(pages)) or self._loading:
                map_singly(mapping)
                # Large pages at the edges of a gap go with it. Those around a page that is mapped come with it.
                give_back(gaps)
                map_again(pages)
                give_back(gaps)
            kept += pages
        self._computed_on = kept
        return sum(pages.size for pages in kept) if kept else None

    def rest(self) -> None:
        """Give back the pages that are computed on, because nobody computes: the next use maps them again."""
        give_back(self._computed_on)

    def wake(self, on_progress: Callable[[float], bool]) -> bool:
        """Map the pages again that ``rest`` gave back; whether that was completed.

        Args:
            on_progress: called with the part that was mapped, 0 to 1; returning False ends it.
        """
        size, mapped = sum(pages.size for pages in self._computed_on), 0
        for pages in self._computed_on:
            for begin in range(pages.begin, pages.end, STEP_BYTES):
                if not on_progress(mapped / size):
                    return False
                step = MappedRange(begin, min(begin + STEP_BYTES, pages.end))
                map_again([step])
                mapped += step.size
        return on_progress(1.0)

    def _own_mappings(self) -> Sequence[MappedRange]:
        """Return where the load has mapped the files; () where another model may have mapped them, too.

        The load has mapped each file. If nobody else has, these mappings are its own, and stay until its end.
        """
        found = self._mappings()
        return found if len(found) == len(self._paths) else ()

    def _mappings(self) -> Sequence[MappedRange]:
        try:
            return mappings_of(self._paths)
        except OSError:
            # A file was removed since, and its mapping cannot be told from others.
            return ()
