"""Finds where a model is: a path on this machine, or a repository of the hub."""

from __future__ import annotations

from pathlib import Path

from modelyard.config.model_reference import parse_model_reference
from modelyard.errors import UnusableModel
from modelyard.hub.sources.hub_id import HubId


def locate(source: str) -> Path | HubId:
    """Return the absolute path that ``source`` names, else the repository.

    Args:
        source: in one of the forms of ``parse_model_reference``, except for models of Ollama, a tag and a file's name.

    Raises:
        UnusableModel: ``source`` is neither a path that exists nor a hub id.
    """
    reference = parse_model_reference(source)
    if reference.kind == "path":
        _check_existence(source, Path(reference.source))
        return Path(reference.source)
    hub_id = HubId.parse(reference.source) if reference.kind == "hub" else None
    if hub_id is None:
        raise UnusableModel(reference.problem or f"'{source}' names a file of a repository, or a tag.")
    return hub_id


def _check_existence(source: str, path: Path) -> None:
    try:
        exists = path.exists()
    except OSError as error:
        raise UnusableModel(f"'{source}' cannot be looked up: {error}. Check the path.") from error
    if not exists:
        looked_for = "" if source == str(path) else f" (looked for {path})"
        raise UnusableModel(f"The path '{source}' does not exist{looked_for}. Check the spelling.")
