"""Paths in a configuration, which are relative to its file, and folders of Modelyard's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from modelyard.errors import ConfigError
from modelyard.system.private_files import make_private_folder
from modelyard.system.typed_paths import expanded


def absolute(path: str | Path, base: Path) -> Path:
    """Return ``path`` as an absolute path: ``~`` is the home folder, relative paths start at ``base``.

    Symbolic links and ``..`` are not resolved: a file in the Hugging Face cache is a link whose target has no ending
    ``.gguf``, and behind a link ``a/..`` is not ``.``.
    """
    return (base / expanded(path)).absolute()


def absolute_program(name: str, base: Path) -> str:
    """Return the absolute path of a program that is named by a relative one; other names are looked for on PATH."""
    return str(absolute(name, base)) if name.startswith(("./", "../", "~/")) else name


def base_of(context: object) -> Path:
    """Return the folder where relative paths start: that of the validation context, else the working directory."""
    base = context.get("base") if isinstance(context, dict) else None
    return base if isinstance(base, Path) else Path.cwd()


def user_cache() -> Path:
    """Return the user's cache folder.

    Raises:
        ConfigError: see ``user_folder``.
    """
    return user_folder(os.environ, "XDG_CACHE_HOME", ".cache")


def user_folder(environ: Mapping[str, str], variable: str, inside_home: str) -> Path:
    """Return the folder that a variable names, else one in the home folder.

    Source: XDG Base Directory Specification, which ignores relative paths in the variable.

    Raises:
        ConfigError: the variable is not set and the user has no home folder, as in a container with a made-up user.
    """
    named = environ.get(variable, "")
    if Path(named).is_absolute():
        return Path(named)
    try:
        return Path.home() / inside_home
    except RuntimeError:
        problem = f"This user has no home folder. Set HOME or {variable} to a folder that the user may write to."
        raise ConfigError("environment", [problem]) from None


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
