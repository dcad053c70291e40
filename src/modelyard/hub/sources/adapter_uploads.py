"""Adapters that clients have sent for the models that they create: kept as long as a model has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from modelyard.config import Config
from modelyard.errors import UnsupportedOperation
from modelyard.formats import peft
from modelyard.hub.sources.uploads import Uploads
from modelyard.system.private_files import make_private_folder, remove_tree

_BASE_CONFIG: Final = "config.json"
_OF_PEFT: Final = (peft.CONFIG, peft.WEIGHTS, _BASE_CONFIG)
_NAME: Final = "adapter"


def check_adapter_names(names: Iterable[str]) -> None:
    """Refuse files that are no adapters, by their names: GGUF files, or those of one folder of PEFT.

    Raises:
        UnsupportedOperation: there is another file.
    """
    for name in names:
        if not _is_gguf(name) and Path(name).name not in _OF_PEFT:
            raise UnsupportedOperation(
                f"adapters: '{name}' is no adapter. Send GGUF files, or {peft.CONFIG} and {peft.WEIGHTS} as PEFT saves "
                "them.",
                "adapters",
            )


def keep_adapters(files: Mapping[str, Path], uploads: Uploads, taken: Iterable[str]) -> list[dict[str, Any]]:
    """Keep files that were sent as adapters, and return their ``[[models.adapters]]`` tables.

    Requests that name no adapter use them, as Ollama's models do.

    Args:
        files: the files that were sent, by their names, which ``check_adapter_names`` has accepted.
        uploads: has them.
        taken: names of adapters that the model has already.

    Raises:
        OSError: a file cannot be kept.
    """
    claimed = {name: uploads.claim(path) for name, path in files.items()}
    paths = [path for name, path in claimed.items() if _is_gguf(name)]
    parts = {Path(name).name: path for name, path in claimed.items() if not _is_gguf(name)}
    if parts:
        paths.append(_put_together(parts, uploads.folder))
    names, tables = set(taken), []
    for path in paths:
        numbered = (f"{_NAME}-{number}" for number in count(2))
        name = next(name for name in chain((_NAME,), numbered) if name not in names)
        names.add(name)
        tables.append({"name": name, "path": str(path), "applied": True})
    return tables


def drop_adapters(paths: Iterable[Path], rest: Config, uploads: Uploads) -> None:
    """Delete what was sent for the adapters of a model that is gone, unless another model has it.

    Args:
        paths: its adapters.
        rest: the configuration without the model.
        uploads: has what was sent.

    Raises:
        OSError: a file cannot be deleted.
    """
    used = {path for other in rest.models for adapter in other.adapters for path in _files(adapter.path)}
    for path in {each for adapter in paths for each in _files(adapter)} - used:
        if path.parent == uploads.folder and path.is_dir():
            remove_tree(path)
        else:
            uploads.remove(path)


def _put_together(parts: Mapping[str, Path], folder: Path) -> Path:
    """Return a folder of links to the files of an adapter of PEFT, under the names that they need.

    It is named by their digests: equal adapters of several models have one.
    """
    facts = " ".join(f"{name} {path.name}" for name, path in sorted(parts.items()))
    together = folder / f"{_NAME}-{hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()}"
    make_private_folder(together)
    for name, path in parts.items():
        with suppress(FileExistsError):
            (together / name).symlink_to(path)
    return together


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _files(path: Path) -> set[Path]:
    """Return the path of an adapter, and in a folder what its links lead to."""
    if not path.is_dir():
        return {path}
    return {path, *(link.readlink() for link in path.iterdir() if link.is_symlink())}
