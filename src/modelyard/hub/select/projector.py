"""Chooses the projector of a model among the files of a folder or repository, and checks that it can be used."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.read import read_header
from modelyard.hub.select.gguf import Shard, gguf_models
from modelyard.hub.select.modalities import modalities_of
from modelyard.hub.select.model_files import ModelFiles, stamps_before_reading
from modelyard.hub.sources.converter_process import run_converter
from modelyard.hub.sources.listing import OnProgress
from modelyard.hub.sources.quant_labels import label_in, normalise

logger = logging.getLogger(__name__)

# Types of projectors, best first. Source: mistral.rs, the choice where no type is requested.
_PREFERRED: Final = ("BF16", "F16", "F32")
_NAMED_PROJECTOR: Final = re.compile(r"(?:^|[^a-z])mmproj(?:[^a-z]|$)", re.IGNORECASE)

# Configured kinds for which a projector is looked up.
KINDS_WITH_PROJECTOR: Final = frozenset({"auto", "multimodal"})


@dataclass(frozen=True, slots=True)
class ProjectorChoice:
    """The projector that was chosen: its name, "" for none, and the reason in one sentence."""

    name: str
    reason: str


def choose_projector(names: Sequence[str], model: str, mmproj: str | None = None) -> ProjectorChoice:
    """Choose the projector among ``names`` for the file ``model`` among them. Pure.

    Projectors in the model's own folder take precedence, then projectors that are named after the model, then BF16
    before F16 before F32 before other types. If several are equally good, none is chosen.

    Args:
        names: files of one folder or repository, relative, with "/".
        model: the file that needs a projector.
        mmproj: the name of the requested projector; None: any.

    Raises:
        UnusableModel: there is no file of the name ``mmproj``.
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
    """Whether two names differ only in "mmproj" and the type, as mmproj-tiny-F16.gguf and tiny-Q4_K_M.gguf do."""
    return _base(projector) == _base(model) != ""


def is_projector_certain(names: Sequence[str], model: str) -> bool:
    """Whether the projector that ``choose_projector`` finds for a model is surely its own, where it finds one.

    It is if it is named after the model, or if all models that it lies beside are the same one in several types. In a
    folder of several models, one projector without such a name belongs to any of them.

    Args:
        names: files of the model's folder and of those below it, relative, with "/".
        model: the file of the model among them.
    """
    chosen = choose_projector(names, model).name
    if not chosen or is_named_after(chosen, model):
        return True
    shards = {name: Shard.parse(name) for name in gguf_models(names)}
    return len({_base(f"{shard.stem}.gguf" if shard else name) for name, shard in shards.items()}) == 1


def _base(name: str) -> str:
    """Return the letters and digits of a file's name, without "mmproj", the type of its weights and the suffix."""
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
    """Projectors that llama.cpp loaded with their models, and conversions of projectors that failed. Thread-safe."""

    def __init__(self) -> None:
        self._loaded: set[tuple[object, ...]] = set()
        self._failures: dict[str, str] = {}

    def failure(self, key: str) -> str | None:
        """Return why the conversion of that key failed in this process; None if it did not."""
        return self._failures.get(key)

    def record_failure(self, key: str, reason: str) -> None:
        """Record that a conversion fails, so that later loads of the model do not repeat it, which takes seconds."""
        self._failures[key] = reason

    def check(self, files: ModelFiles, on_progress: OnProgress) -> None:
        """Load the projector of ``files`` in a process of its own, unless these files were loaded before.

        Raises:
            UnusableModel: llama.cpp cannot load it, or aborts the process; or ``on_progress`` returned False.
        """
        if files.projector is None:
            return
        paths = (files.projector, *files.paths)
        key = tuple((path, status.st_size, status.st_mtime_ns) for path in paths for status in (path.stat(),))
        if key in self._loaded:
            return
        try:
            options = ["--audio-encoder", files.modalities.audio_encoder] if files.modalities.has_audio else []
            run_converter("try_projector", [*map(str, paths), *options], on_progress, logger.warning)
        except UnusableModel as problem:
            raise UnusableModel(
                f"The projector {files.projector.name} does not work with {files.paths[0].name}. {problem} Download it "
                "again, use the model's own, or set kind = 'text' to serve the model without images and sound."
            ) from problem
        self._loaded.add(key)


def with_projector(files: ModelFiles, path: Path, *, is_required: bool) -> ModelFiles:
    """Read and check the projector at ``path``, and return ``files`` with it.

    Args:
        files: files of the language model.
        path: file of the projector.
        is_required: whether the projector was requested; else one that takes neither images nor sound is left out.

    Raises:
        UnusableModel: the file is no projector, is damaged, or takes neither images nor sound though it is required.
    """
    stamps = stamps_before_reading((path,))
    header = read_header(path)
    if not header.is_projector:
        raise UnusableModel(f"{path}: This file is no projector (its role is '{header.role}'). Name another in mmproj.")
    modalities = modalities_of(header)
    if not (modalities.has_vision or modalities.has_audio):
        if is_required:
            raise UnusableModel(
                f"{path}: This projector takes neither images nor sound that the model could answer to. Name another "
                "in mmproj, or set kind = 'text'."
            )
        return files
    warnings = files.warnings
    if modalities.caveat:
        logger.warning("%s: %s", path.name, modalities.caveat)
        warnings = (*warnings, modalities.caveat)
    return replace(
        files,
        projector=path,
        projector_bytes=header.file_size,
        kind="multimodal",
        modalities=modalities,
        warnings=warnings,
        stamps=(*files.stamps, *stamps),
    )
