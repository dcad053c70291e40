"""Paths as a configuration writes them: relative to the file that holds them."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard.system.private_files import make_private_folder

_PATH_BEGINNINGS = ("./", "../", "~")


def absolute(path: str | Path, base: Path) -> Path:
    """``path`` as an absolute path: ``~`` is the home folder, relative is relative to ``base``.

    Symbolic links and ``..`` stay: a file in the Hugging Face cache is a link whose target has lost the ending
    ``.gguf``, and behind a link ``a/..`` is not ``.``.
    """
    try:
        path = Path(path).expanduser()
    except RuntimeError:  # "~nobody": no such user, so an ordinary name
        path = Path(path)
    return (base / path).absolute()


def base_of(context: object) -> Path:
    """The folder that relative paths start from, as the validation context says; else the working directory."""
    base = context.get("base") if isinstance(context, dict) else None
    return base if isinstance(base, Path) else Path.cwd()


def source_of(model_id: str, base: Path) -> str:
    """Where a model comes from: an absolute path if ``model_id`` means a path, else the hub id, unchanged.

    It means a path if it looks like one (absolute, ``./``, ``../``, ``~``, ``.gguf``) or if something of that name lies
    in ``base``.
    """
    path = absolute(model_id, base)
    looks_like_path = (
        Path(model_id).is_absolute() or model_id.startswith(_PATH_BEGINNINGS) or model_id.lower().endswith(".gguf")
    )
    return str(path) if looks_like_path or exists(path) else model_id


def user_cache() -> Path:
    """Where programs keep what they can make again. Source: XDG Base Directory Specification, XDG_CACHE_HOME."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if Path(named).is_absolute() else Path("~/.cache").expanduser()


def own_cache() -> Path:
    """Where Modelyard keeps what it can make again."""
    return user_cache() / "modelyard"


def make_own_folder(folder: Path) -> None:
    """Have a folder of files that Modelyard writes, closed to other users of the machine, as is ``own_cache``.

    Raises:
        OSError: it cannot be made, or belongs to another user.
    """
    root = own_cache()
    make_private_folder(folder, root if folder.is_relative_to(root) else None)


def exists(path: Path) -> bool:
    """Whether something is there that can be looked at; a name that no file can have is not there."""
    try:
        return path.exists()
    except OSError:  # for example a name that is too long
        return False


def is_file(path: Path) -> bool:
    """Whether a file is there that can be looked at."""
    try:
        return path.is_file()
    except OSError:
        return False
