"""Room on disk, and files that appear whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelyard.errors import UnusableModel


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse what the disk of ``folder``, which need not exist yet, has no room for.

    Raises:
        UnusableModel: it begins with ``what``.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(there).free
    if needed_bytes > free_bytes:
        raise UnusableModel(
            f"{what}: it needs {needed_bytes / 1e9:.1f} GB on the disk of {there}, which has {free_bytes / 1e9:.1f} GB "
            "left. Free some: `modelyard cache list` shows what converted and downloaded models take."
        )
