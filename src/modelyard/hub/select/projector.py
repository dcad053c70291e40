"""Which projector of a folder or repository goes with a model, and whether it can be used."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.read import read_header
from modelyard.hub.select.model_files import ModelFiles, stamps_before_reading
from modelyard.hub.select.senses import senses_of
from modelyard.hub.sources.converter_process import run_converter
from modelyard.hub.sources.listing import OnProgress
from modelyard.hub.sources.quant_labels import label_in, normalise

logger = logging.getLogger(__name__)

# Best first. Source: the reference's choice where no type is asked for.
_PREFERRED: Final = ("BF16", "F16", "F32")
_NAMED_PROJECTOR: Final = re.compile(r"(?:^|[^a-z])mmproj(?:[^a-z]|$)", re.IGNORECASE)

# Kinds of models that a projector is looked for.
KINDS_WITH_PROJECTOR: Final = frozenset({"auto", "multimodal"})


@dataclass(frozen=True, slots=True)
class ProjectorChoice:
    """The projector that is meant: its name, "" for none, and why, in one sentence."""

    name: str
    reason: str


def choose_projector(names: Sequence[str], model: str, mmproj: str | None = None) -> ProjectorChoice:
    """The projector among ``names`` for the file ``model`` among them. Pure.

    Of those in the model's own folder, else of all: those that are named after the model, else all; of these BF16
    before F16 before F32 before other types. Where several are equally good, none is taken.

    Args:
        names: files of one folder or repository, relative, with "/".
        model: of which the projector is wanted.
        mmproj: the name of the one that is asked for.

    Raises:
        UnusableModel: there is none of that name.
    """
    found = [name for name in names if name.lower().endswith(".gguf") and _is_named_projector(name)]
    if mmproj is not None:
        if mmproj in names:
            return ProjectorChoice(mmproj, f"{mmproj}: it is named by mmproj.")
        raise UnusableModel(f"There is no projector '{mmproj}'. There are: {', '.join(found) or 'none'}.")
    beside = [name for name in found if PurePosixPath(name).parent == PurePosixPath(model).parent]
    candidates = beside or found
    candidates = [name for name in candidates if is_named_after(name, model)] or candidates
    if not candidates:
        return ProjectorChoice("", "There is no projector.")
    best = min(map(_rank, candidates))
    matches = [name for name in candidates if _rank(name) == best]
    if len(matches) > 1:
        return ProjectorChoice(
            "", f"{len(matches)} projectors match equally well: {', '.join(matches)}. Name one of them in mmproj."
        )
    return ProjectorChoice(matches[0], f"{matches[0]}: it is the projector of the preferred type there.")


def is_named_after(projector: str, model: str) -> bool:
    """Whether two names differ in "mmproj" and types of weights alone: mmproj-tiny-F16.gguf and tiny-Q4_K_M.gguf."""
    return _base(projector) == _base(model) != ""


def _base(name: str) -> str:
    """Letters and digits of a file's name, without "mmproj", the type of its weights and the ending."""
    stem = PurePosixPath(name).stem
    label = label_in(PurePosixPath(name).name)
    if label is not None:
        stem = re.sub(re.escape(label), "", stem, flags=re.IGNORECASE)
    return "".join(filter(str.isalnum, stem.lower().replace("mmproj", "")))


def _is_named_projector(name: str) -> bool:
    return _NAMED_PROJECTOR.search(PurePosixPath(name).name) is not None


def _rank(name: str) -> int:
    label = normalise(label_in(PurePosixPath(name).name) or "")
    return _PREFERRED.index(label) if label in _PREFERRED else len(_PREFERRED)


class TriedProjectors:
    """Projectors that llama.cpp survived beside their models, and those that cannot be made. Thread-safe."""

    def __init__(self) -> None:
        self._survived: set[tuple[object, ...]] = set()
        self._failures: dict[str, str] = {}

    def failure(self, key: str) -> str | None:
        """Why the conversion of that key failed in this process; None where it did not."""
        return self._failures.get(key)

    def note_failure(self, key: str, reason: str) -> None:
        """Remember that a conversion fails: each load of a model would try it again, which takes seconds."""
        self._failures[key] = reason

    def check(self, files: ModelFiles, on_progress: OnProgress) -> None:
        """Try the projector of ``files`` in a process of its own, unless these very files were tried before.

        Raises:
            UnusableModel: llama.cpp cannot load it, or ends the process on it; or it was given up.
        """
        if files.projector is None:
            return
        paths = (files.projector, *files.paths)
        key = tuple((path, status.st_size, status.st_mtime_ns) for path in paths for status in (path.stat(),))
        if key in self._survived:
            return
        try:
            options = ["--audio-encoder", files.senses.audio_encoder] if files.senses.hears else []
            run_converter("try_projector", [*map(str, paths), *options], on_progress, logger.warning)
        except UnusableModel as problem:
            raise UnusableModel(
                f"The projector {files.projector.name} does not work with {files.paths[0].name}. {problem} Download it "
                "again, use the model's own, or set kind = 'text' to serve the model without images and sound."
            ) from problem
        self._survived.add(key)


def with_projector(files: ModelFiles, path: Path, *, is_required: bool) -> ModelFiles:
    """The same files with the projector in ``path``, looked into and checked.

    Args:
        files: of the model.
        path: of the projector.
        is_required: whether it was asked for; else one that takes neither images nor sound is left aside.

    Raises:
        UnusableModel: it is none, is damaged, or takes neither images nor sound though it is required.
    """
    stamps = stamps_before_reading((path,))
    header = read_header(path)
    if not header.is_projector:
        raise UnusableModel(f"{path}: This file is no projector (its role is '{header.role}'). Name another in mmproj.")
    senses = senses_of(header)
    if not (senses.sees or senses.hears):
        if is_required:
            raise UnusableModel(
                f"{path}: This projector takes neither images nor sound that the model could answer to. Name another "
                "in mmproj, or set kind = 'text'."
            )
        return files
    warnings = files.warnings
    if senses.caveat:
        logger.warning("%s: %s", path.name, senses.caveat)
        warnings = (*warnings, senses.caveat)
    return replace(
        files,
        projector=path,
        projector_bytes=header.file_size,
        kind="multimodal",
        senses=senses,
        warnings=warnings,
        stamps=(*files.stamps, *stamps),
    )
