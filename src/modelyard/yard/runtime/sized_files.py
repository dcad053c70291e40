"""The files that models were sized with: a load refuses others in their place."""

from __future__ import annotations

import asyncio
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.system.file_stamp import FileStamp, first_changed
from modelyard.yard.runtime.interfaces import ModelFilesReplaced
from modelyard.yard.runtime.model_spec import SpecFiles

MAX_REPLACED_IN_ROW: Final = 3
"""How often a load sizes its model again because files were replaced: one that is being written differs each time."""


class SizedFiles:
    """What was read of the files of models when they were sized. Models are named as in the residency."""

    def __init__(self) -> None:
        # Kept until the load: a header with 262,144 tokens takes 0.2 s to read.
        self._read: dict[str, SpecFiles] = {}
        self._stamps: dict[str, tuple[FileStamp, ...]] = {}
        # How often, in a row, files were replaced between sizing and load.
        self._replaced: dict[str, int] = {}

    def stamps(self, model: str) -> tuple[FileStamp, ...] | None:
        """Return the stamps of the files that a model was sized with; None: it was not sized."""
        return self._stamps.get(model)

    def keep(self, model: str, files: SpecFiles) -> None:
        """Keep the files that a model is sized with."""
        self._read[model], self._stamps[model] = files, files.stamps

    def keep_read(self, model: str, files: SpecFiles) -> None:
        """Keep what was read of the files of a model for its next load, without sizing it."""
        self._read[model] = files

    def take(self, model: str) -> SpecFiles | None:
        """Return what was read of the files of a model, once; None: they are to be read again."""
        return self._read.pop(model, None)

    async def check(self, model: str, files: SpecFiles) -> None:
        """Refuse files that are not those that were sized, or that changed since their headers were read.

        Raises:
            UnusableModel: they are replaced again and again.
            ModelFilesReplaced: they were replaced.
        """
        sized = self._stamps.get(model)
        changed = await asyncio.to_thread(first_changed, files.stamps)
        if changed is None and sized is not None:
            known = {stamp.contents for stamp in sized}
            others = [stamp.path for stamp in files.stamps if stamp.contents not in known]
            # A model may be its own draft model, from the same file.
            count = len({stamp.contents for stamp in files.stamps})
            changed = next(iter(others), None if len(known) == count else files.model.paths[0])
        replaced = self._replaced.pop(model, 0)
        if changed is None:
            return
        if replaced >= MAX_REPLACED_IN_ROW:
            raise UnusableModel(f"{changed.name} changes while it is looked into. Try again when it is complete.")
        self._replaced[model] = replaced + 1
        raise ModelFilesReplaced(changed.name)

    def drop_read(self, model: str) -> None:
        """Drop what was read of the files of a model, because its adapters differ by now."""
        self._read.pop(model, None)
        self._stamps.pop(model, None)

    def discard(self, model: str) -> None:
        """Drop everything that is known of a model."""
        self.drop_read(model)
        self._replaced.pop(model, None)
