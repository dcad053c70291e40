"""Paths as people write them, also such as no file can have: nothing here raises for one.

``pathlib`` raises for the home folder of a user that does not exist, and for names that are too long.
"""

from __future__ import annotations

from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return ``path`` with the home folder in place of a ``~`` at its beginning; unchanged where there is no such."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # "~nobody": no such user, so an ordinary name
        return Path(path)


def exists(path: Path) -> bool:
    """Whether a file or folder exists and its status can be read; false for a name that no file can have."""
    try:
        return path.exists()
    except OSError:  # for example a name that is too long
        return False


def is_file(path: Path) -> bool:
    """Whether a file exists and its status can be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder exists and its status can be read."""
    try:
        return path.is_dir()
    except OSError:
        return False
