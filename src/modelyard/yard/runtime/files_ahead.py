"""Reads the files of models that wait for memory into the page cache, those of one model at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelyard.engine.loading.read_ahead import ReadAhead


class FilesAhead:
    """The files that are read before their load begins. Models are named as in the residency."""

    def __init__(self) -> None:
        self._reading: dict[str, ReadAhead] = {}

    def begin(self, model: str, paths: Sequence[Path]) -> None:
        """Begin to read the files of a model, unless those of another one are being read. Returns at once."""
        if not any(reading.goes_on for reading in self._reading.values()):
            self._reading[model] = ReadAhead(paths)

    def end(self, model: str) -> None:
        """Stop to read the files of a model, if they are being read."""
        if (reading := self._reading.pop(model, None)) is not None:
            reading.end()

    def close(self) -> None:
        """Stop to read."""
        for model in list(self._reading):
            self.end(model)
