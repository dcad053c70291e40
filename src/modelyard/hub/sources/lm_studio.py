"""Finds the folders in which LM Studio keeps the models that it has downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from modelyard.config.bounded_read import NotReadable, read_regular

# Source: LM Studio, docs/app/advanced/import-model (publisher/model/model-file.gguf below models/), and what versions
# before 0.3 used.
_HOMES: Final = (".lmstudio", ".cache/lm-studio")
_POINTER: Final = ".lmstudio-home-pointer"


def lm_studio_folders(home: Path) -> list[Path]:
    """Return the folders of models that are there, below the home folder of the user."""
    folders = dict.fromkeys(folder / "models" for folder in _homes(home))
    return [folder for folder in folders if folder.is_dir()]


def _homes(home: Path) -> Iterator[Path]:
    try:
        named = read_regular(home / _POINTER).decode().strip()
    except (OSError, NotReadable, UnicodeDecodeError):
        named = ""  # LM Studio writes this file only where its folder is elsewhere
    if named and Path(named).is_absolute():
        yield Path(named)
    yield from (home / name for name in _HOMES)
