"""The files of a folder or of a repository, before any of them is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.quant_labels import is_auxiliary

# What a checkpoint in the layout of the hub consists of, beside its weights. No code: nothing of it is ever run.
_DESCRIPTIONS: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file by its relative name, with "/". size_bytes is None where nobody has said it."""

    name: str
    size_bytes: int | None
    is_here: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one folder, or of one repository at one commit.

    Attributes:
        source: what people call it.
        files: sorted by name.
        folder: where the files are, or will be; None for a repository of which nothing was downloaded yet.
        hub_id: the repository, its revision as it was asked for; None for a folder.
        commit: that the revision stood for.
        base_models: repositories that it declares to be made from.
        note: what is to be known about the listing itself; "" if nothing is.
        file_format: "gguf" or "plain" where weights of the other format were left out; "" where all are there.
        uqff_report: contents of its ``uqff_report.json``; None where there is none.
    """

    source: str
    files: tuple[ListedFile, ...]
    folder: Path | None = None
    hub_id: HubId | None = None
    commit: str = ""
    base_models: tuple[str, ...] = ()
    note: str = ""
    file_format: str = ""
    uqff_report: bytes | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all files."""
        return tuple(file.name for file in self.files)

    @property
    def gguf(self) -> tuple[str, ...]:
        """Models in GGUF, without projectors, importance matrices and adapters."""
        return tuple(name for name in self.names if name.lower().endswith(".gguf") and not is_auxiliary(name))

    @property
    def uqff(self) -> tuple[str, ...]:
        """Shards in UQFF."""
        return tuple(name for name in self.names if name.lower().endswith(".uqff"))

    @property
    def pickles(self) -> tuple[str, ...]:
        """PyTorch's pickled weights."""
        return tuple(name for name in self.names if name.lower().endswith((".bin", ".pt", ".pth")))

    @property
    def safetensors(self) -> tuple[str, ...]:
        """The weights of a full-precision checkpoint, as its converter finds them.

        Source: llama.cpp, ModelBase.index_tensors in conversion/base.py: ``model*.safetensors`` at the top.
        """
        top = (name for name in self.names if "/" not in name and name.endswith(".safetensors"))
        return tuple(name for name in top if name.startswith("model"))

    @property
    def descriptions(self) -> tuple[str, ...]:
        """Configuration and tokenizer of a checkpoint, with those of sentence-transformers' modules."""
        return tuple(
            name
            for name in self.names
            if name.endswith(_DESCRIPTIONS)
            and (len(parts := PurePosixPath(name).parts) == 1 or (len(parts) == 2 and parts[1] == "config.json"))
        )

    def size_of(self, names: Iterable[str]) -> int:
        """Bytes of those files, as far as they are known."""
        wanted = set(names)
        return sum(file.size_bytes or 0 for file in self.files if file.name in wanted)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of ``names`` that are not on this machine."""
        wanted = set(names)
        return tuple(file.name for file in self.files if file.name in wanted and not file.is_here)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the preparation of a model is. step is in the present participle, for people; fraction 0 to 1."""

    step: str
    fraction: float


OnProgress = Callable[[Progress], bool]
"""Called at least every second while files are prepared; returning False gives the preparation up."""
