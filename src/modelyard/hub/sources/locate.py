"""Tells whether a model is named by a path or by a repository of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.hub.sources.hub_id import HubId

_PATH_STARTS: Final = ("/", "./", "../", "~")
_WEIGHT_SUFFIXES: Final = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".uqff", ".ggml")


def locate(source: str) -> Path | HubId:
    """Return the absolute path that ``source`` names, else the repository.

    A source that starts with / ./ ../ ~, ends like a weight file, or exists as a file or folder is a path.

    Raises:
        UnusableModel: ``source`` is neither a path that exists nor a hub id.
    """
    path = _as_path(source)
    if path is not None:
        return path
    hub_id = HubId.parse(source)
    if hub_id is None:
        raise UnusableModel(
            f"'{source}' is neither a path that exists nor a hub id (org/name). Check the spelling; "
            "start a relative path with './'."
        )
    return hub_id


def _as_path(source: str) -> Path | None:
    """Return the path that ``source`` names; None if it can only be a hub id."""
    if not source.strip() or "\0" in source:
        raise UnusableModel(f"{source!r} is not a model. Name a GGUF file, a folder or a hub id (org/name).")
    try:
        path = Path(source).expanduser().absolute()
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: the user in ~user does not exist
        raise UnusableModel(f"'{source}' cannot be looked up: {error}. Check the path.") from error
    if exists:
        return path
    if source in (".", "..") or source.startswith(_PATH_STARTS) or source.lower().endswith(_WEIGHT_SUFFIXES):
        raise UnusableModel(f"The path '{source}' does not exist (looked for {path}). Check the spelling.")
    return None
