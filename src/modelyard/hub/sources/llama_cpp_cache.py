"""Finds the models that llama.cpp has downloaded into its own cache.

All files are in one folder. ``manifest=<org>=<name>=<tag>.json`` is what the hub answered for ``org/name:tag``; the
files that it names are ``<org>_<name>_<file>``, with "_" for "/". Source: llama.cpp, common/download.cpp.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelyard.config.bounded_read import NotReadable, read_regular
from modelyard.config.model_reference import DEFAULT_TAG
from modelyard.system.typed_paths import expanded

_MANIFEST: Final = "manifest="


@dataclass(frozen=True, slots=True)
class LlamaCppModel:
    """A model in the cache.

    Attributes:
        name: ``org/name``, with the tag that it was asked for.
        path: its file, or the first of its shards.
        projector: name of the file of its projector; None for a model without one.
    """

    name: str
    path: Path
    projector: str | None


def llama_cpp_folder(home: Path, environment: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the folder of llama.cpp's cache; it need not exist."""
    if named := environment.get("LLAMA_CACHE"):
        return expanded(named)
    if platform == "darwin":
        return home / "Library" / "Caches" / "llama.cpp"
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "llama.cpp"
    cache = environment.get("XDG_CACHE_HOME")
    return (expanded(cache) if cache else home / ".cache") / "llama.cpp"


def llama_cpp_models(folder: Path) -> list[LlamaCppModel]:
    """Return the models that the manifests in the cache name, sorted by name.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = []
    for manifest in sorted(folder.glob(f"{_MANIFEST}*.json")):
        parts = manifest.stem.removeprefix(_MANIFEST).split("=")
        if len(parts) != 3:
            continue
        organisation, name, tag = parts
        listed = _json(manifest)
        if (model := _file_name(listed, "ggufFile", f"{organisation}_{name}_")) is None:
            continue
        shown = f"{organisation}/{name}" + ("" if tag.lower() == DEFAULT_TAG else f":{tag}")
        projector = _file_name(listed, "mmprojFile", f"{organisation}_{name}_")
        is_there = projector is not None and (folder / projector).is_file()
        found.append(LlamaCppModel(shown, folder / model, projector if is_there else None))
    return found


def _json(path: Path) -> Any:
    """Return the contents of a manifest; None where it is damaged: llama.cpp asks the hub again, too."""
    try:
        return json.loads(read_regular(path))
    except (OSError, NotReadable, ValueError, RecursionError):
        return None


def _file_name(listed: Any, key: str, prefix: str) -> str | None:
    match listed:
        case dict() if isinstance(entry := listed.get(key), dict) and isinstance(file := entry.get("rfilename"), str):
            return prefix + file.replace("/", "_")
    return None
