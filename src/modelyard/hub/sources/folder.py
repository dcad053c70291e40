"""The files of a folder, by relative name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel

DEEPEST: Final = 3
MAX_FILES: Final = 20_000


def list_files(folder: Path) -> list[str]:
    """Relative names of the files in a folder and DEEPEST levels below it, with "/", sorted; hidden ones left out.

    Raises:
        UnusableModel: a part of it cannot be listed, or there are more than MAX_FILES: it is no model's folder.
    """
    names: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_cannot_list):
        inside = Path(parent).relative_to(folder)
        if len(inside.parts) >= DEEPEST:
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
