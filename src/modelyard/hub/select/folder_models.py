"""Finds the models in a folder of several. Pure: names in, names out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from modelyard.hub.select.gguf import gguf_models

_CONFIG: Final = "config.json"
WHOLE_FOLDER: Final = ""
"""The name of a model that is the folder itself."""


def folder_models(names: Sequence[str]) -> tuple[str, ...]:
    """Return the models among the files of a folder: GGUF files, the first shard of each, and folders of checkpoints.

    The folder itself, as ``WHOLE_FOLDER``, is the only model if it is a checkpoint, or if there is a single GGUF model.
    Projectors, importance matrices and adapters are no models.

    Args:
        names: relative names, with "/".
    """
    checkpoints = _checkpoints(names)
    if "." in checkpoints:
        return (WHOLE_FOLDER,)
    files = [
        first for first in gguf_models(names) if not any(_is_below(first, checkpoint) for checkpoint in checkpoints)
    ]
    if len(files) == 1 and not checkpoints:
        return (WHOLE_FOLDER,)
    return tuple(sorted((*files, *checkpoints)))


def _checkpoints(names: Sequence[str]) -> list[str]:
    """Return the folders that hold weights in safetensors or UQFF, and the configuration that belongs to them."""
    contents: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        path = PurePosixPath(name)
        contents[str(path.parent)].add(path.name)
    return [
        folder
        for folder, files in sorted(contents.items())
        if _CONFIG in files
        and any(
            file.endswith(".uqff") or (file.startswith("model") and file.endswith(".safetensors")) for file in files
        )
    ]


def _is_below(name: str, folder: str) -> bool:
    return PurePosixPath(name).is_relative_to(folder)
