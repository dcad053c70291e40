"""The files of the page, read once when the server starts: they are few and small, and a rebuild renames most."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

UI_FOLDER: Final = Path(__file__).parent / "static"
"""Where ``make ui`` puts the files; git ignores it."""

INDEX: Final = "index.html"

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_OTHER_TYPE: Final = "application/octet-stream"

_ENCODINGS: Final = {".br": "br", ".gz": "gzip"}
"""Suffix of a compressed file -> content coding, the better ones first."""

# Vite puts the hash of their content into the names of all files there.
_HASHED_FOLDER: Final = "assets/"


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page.

    Attributes:
        content: its bytes.
        media_type: as ``Content-Type``.
        is_immutable: whether a file of this name never has another content.
        tag: identifies its content, as an ETag without a coding.
        compressed: from a content coding to the compressed bytes, the better ones first.
    """

    content: bytes = field(repr=False)
    media_type: str
    is_immutable: bool
    tag: str
    compressed: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def read_files(folder: Path) -> dict[str, PageFile]:
    """Return the files of the page by their paths in ``folder``, with "/"; none where the page was not built."""
    if not (folder / INDEX).is_file():
        return {}
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    # Names that begin with a dot are notes of the build.
    plain = [name for name in paths if not name.startswith(".") and not _is_compressed(name, paths)]
    return {name: _read(name, paths) for name in plain}


def _is_compressed(name: str, paths: Mapping[str, Path]) -> bool:
    return any(name.endswith(suffix) and name.removesuffix(suffix) in paths for suffix in _ENCODINGS)


def _read(name: str, paths: Mapping[str, Path]) -> PageFile:
    content = paths[name].read_bytes()
    return PageFile(
        content,
        _TYPES.get(paths[name].suffix, _OTHER_TYPE),
        name.startswith(_HASHED_FOLDER),
        hashlib.sha256(content).hexdigest()[:20],
        {coding: paths[name + suffix].read_bytes() for suffix, coding in _ENCODINGS.items() if name + suffix in paths},
    )
