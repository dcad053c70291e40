"""What a case of the fuzzer comes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Fault(Exception):
    """Something that must not happen; the message says what."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where cases are played.

    Attributes:
        folder: empty; theirs alone.
        weights: the file of SmolLM2.
    """

    folder: Path
    weights: Path


class Kind(Protocol):
    """Cases of one kind, each made of its seed alone."""

    def __call__(self, seed: int, place: Place) -> str:
        """Play a case: how it ended, in a word or two.

        Raises:
            Fault: as it must not.
        """
