"""Paths in a configuration, which are relative to its file, and folders of Modelyard's own."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard.system.private_files import make_private_folder


def absolute(path: str | Path, base: Path) -> Path:
    """Return ``path`` as an absolute path: ``~`` is the home folder, relative paths start at ``base``.

    Symbolic links and ``..`` are not resolved: a file in the Hugging Face cache is a link whose target has no ending
    ``.gguf``, and behind a link ``a/..`` is not ``.``.
    """
    try:
        path = Path(path).expanduser()
    except RuntimeError:  # "~nobody": no such user, so an ordinary name
        path = Path(path)
    return (base / path).absolute()


def base_of(context: object) -> Path:
    """Return the folder where relative paths start: that of the validation context, else the working directory."""
    base = context.get("base") if isinstance(context, dict) else None
    return base if isinstance(base, Path) else Path.cwd()


def user_cache() -> Path:
    """Return the user's cache folder. Source: XDG Base Directory Specification, XDG_CACHE_HOME."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if Path(named).is_absolute() else Path("~/.cache").expanduser()


def own_cache() -> Path:
    """Return Modelyard's folder in the user's cache."""
    return user_cache() / "modelyard"


def make_own_folder(folder: Path) -> None:
    """Make a folder for files that Modelyard writes, closed to other users of the machine, and ``own_cache`` above it.

    Raises:
        OSError: it cannot be made, or belongs to another user.
    """
    root = own_cache()
    make_private_folder(folder, root if folder.is_relative_to(root) else None)


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
