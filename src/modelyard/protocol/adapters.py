"""LoRA adapters and control vectors of a model: which files there are, and which of them a request uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelyard.system.file_stamp import FileStamp


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter that an engine holds beside its weights.

    Attributes:
        name: by which requests ask for it.
        path: its GGUF file.
        digest: hexadecimal; equal for equal contents.
        size_bytes: size of its matrices.
        stamp: of the file when it was checked; None: nothing checks that it is the same.
        is_vector: whether it is a control vector.
        layers: the first and the last layer that a control vector is applied to; None: all.
    """

    name: str
    path: Path
    digest: str
    size_bytes: int
    stamp: FileStamp | None = None
    is_vector: bool = False
    layers: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """An adapter that a request uses.

    Attributes:
        name: its name among the adapters of the model.
        scale: factor of what it adds to the weights, or to what layers compute.
    """

    name: str
    scale: float
