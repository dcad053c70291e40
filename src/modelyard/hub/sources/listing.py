"""Listings: the names and sizes of the files of a folder or repository, before any of them is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.quant_labels import is_auxiliary

# Suffixes of a checkpoint's files beside its weights. Code is not among them: no program of a checkpoint is run.
_DESCRIPTIONS: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken")


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a listing.

    Attributes:
        name: relative path, with "/".
        size_bytes: size of the file; None where it is not known.
        is_here: whether the file is on this machine.
    """

    name: str
    size_bytes: int | None
    is_here: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one folder, or of one repository at one commit.

    Attributes:
        source: the folder or repository, as the user named it.
        files: the files, sorted by name.
        folder: the folder of the files; None for a repository of which nothing is downloaded.
        hub_id: the repository with the requested revision; None for a folder.
        commit: the commit that the revision resolved to.
        base_models: repositories that the repository declares to be derived from.
        note: a notice about the listing for the user; "" for none.
        file_format: "gguf" or "plain" if weights of the other format were left out; "" if none were.
        uqff_report: contents of ``uqff_report.json``; None where there is none.
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
        """Names of all files."""
        return tuple(file.name for file in self.files)

    @property
    def gguf(self) -> tuple[str, ...]:
        """Names of models in GGUF, without projectors, importance matrices and adapters."""
        return tuple(name for name in self.names if name.lower().endswith(".gguf") and not is_auxiliary(name))

    @property
    def uqff(self) -> tuple[str, ...]:
        """Names of UQFF shards."""
        return tuple(name for name in self.names if name.lower().endswith(".uqff"))

    @property
    def pickles(self) -> tuple[str, ...]:
        """Names of files with PyTorch's pickled weights."""
        return tuple(name for name in self.names if name.lower().endswith((".bin", ".pt", ".pth")))

    @property
    def safetensors(self) -> tuple[str, ...]:
        """Names of the weight files of a full-precision checkpoint that llama.cpp's converter reads.

        Source: llama.cpp, ModelBase.index_tensors in conversion/base.py: ``model*.safetensors`` at the top.
        """
        top = (name for name in self.names if "/" not in name and name.endswith(".safetensors"))
        return tuple(name for name in top if name.startswith("model"))

    @property
    def descriptions(self) -> tuple[str, ...]:
        """Names of the configuration and tokenizer files of a checkpoint and of its sentence-transformers modules."""
        return tuple(
            name
            for name in self.names
            if name.endswith(_DESCRIPTIONS)
            and (len(parts := PurePosixPath(name).parts) == 1 or (len(parts) == 2 and parts[1] == "config.json"))
        )

    def size_of(self, names: Iterable[str]) -> int:
        """Return the sum of the known sizes of those files."""
        wanted = set(names)
        return sum(file.size_bytes or 0 for file in self.files if file.name in wanted)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the files among ``names`` that are not on this machine."""
        wanted = set(names)
        return tuple(file.name for file in self.files if file.name in wanted and not file.is_here)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of preparing a model.

    Attributes:
        step: the current step, in the present participle, such as "downloading".
        fraction: the completed part of the step, 0 to 1.
    """

    step: str
    fraction: float


OnProgress = Callable[[Progress], bool]
"""Called at least every second while files are prepared; returning False cancels the preparation."""
