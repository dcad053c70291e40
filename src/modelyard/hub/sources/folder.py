"""Lists the files of a folder by their relative names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel

MAX_DEPTH: Final = 3
MAX_FILES: Final = 20_000


def list_files(folder: Path) -> list[str]:
    """Return the relative names of the files in a folder and MAX_DEPTH levels below it, with "/", sorted.

    Hidden files and folders are left out.

    Raises:
        UnusableModel: a folder cannot be listed, or there are more than MAX_FILES files: it is no model's folder.
    """
    names: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_cannot_list):
        inside = Path(parent).relative_to(folder)
        if len(inside.parts) >= MAX_DEPTH:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        if len(names) > MAX_FILES:
            raise UnusableModel(f"{folder}: There are more than {MAX_FILES} files. Name the folder of one model.")
    return sorted(names)


def _cannot_list(error: OSError) -> None:
    raise UnusableModel(
        f"{error.filename}: The folder cannot be listed: {error.strerror}. Check the path and its permissions."
    )
