"""What a case of the fuzzer comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a case ended that is no fault.

    Attributes:
        how: in a word or two.
        measured: what was measured of it, by what it is; the most of all cases is told in the end.
    """

    how: str
    measured: Mapping[str, float] = field(default_factory=dict)


class Kind(Protocol):
    """Cases of one kind, each made of its seed alone."""

    def __call__(self, seed: int, place: Place) -> Ending:
        """Play a case.

        Raises:
            Fault: as it must not.
        """
