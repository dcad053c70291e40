"""Checks free disk space."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelyard.errors import UnusableModel


def check_disk_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Check that the disk of ``folder``, which need not exist yet, has ``needed_bytes`` free.

    Raises:
        UnusableModel: it has not; the message begins with ``what``.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise UnusableModel(
            f"{what}: it needs {needed_bytes / 1e9:.1f} GB on the disk of {existing}, which has "
            f"{free_bytes / 1e9:.1f} GB left. Free some: `modelyard cache list` shows what converted and downloaded "
            "models take."
        )
