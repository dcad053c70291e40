"""Reads the models that Ollama has downloaded to this machine. Nothing there is changed.

A manifest in ``manifests/<host>/<namespace>/<name>/<tag>`` lists the layers of a model by type and digest; each layer
is a file in ``blobs/``. Source: Ollama, docs/faq.mdx ("Where are models stored?") and server/manifest.go.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modelyard.config.bounded_read import NotReadable, read_regular
from modelyard.config.model_reference import DEFAULT_TAG
from modelyard.errors import UnusableModel
from modelyard.system.typed_paths import expanded

PREFIX: Final = "ollama:"
_HOST: Final = "registry.ollama.ai"
_NAMESPACE: Final = "library"
_LAYER: Final = "application/vnd.ollama.image."
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
# Where Ollama's installer for Linux has the models of the user that runs its service.
_SERVICE_STORE: Final = Path("/usr/share/ollama/.ollama/models")
# More would be no list of names, but a tree that was put there by hand.
_MAX_MANIFESTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """A model in Ollama's store.

    Attributes:
        name: its name, with a tag.
        path: file of its weights, in GGUF, whose name is a digest.
        size_bytes: size of that file.
        projector: file of its projector; None for a model without one.
        parameters: its parameters by Ollama's names, such as ``num_ctx`` and ``temperature``.
        system: its system prompt; "" for none.
    """

    name: str
    path: Path
    size_bytes: int
    projector: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""


def read_ollama_model(name: str, environ: Mapping[str, str] = os.environ) -> OllamaModel:
    """Return the model of that name.

    Args:
        name: ``name``, ``name:tag``, ``namespace/name:tag`` or ``host/namespace/name:tag``; also after ``ollama:``.
        environ: the environment, for OLLAMA_MODELS.

    Raises:
        UnusableModel: there is no such model, a part of it is missing or damaged, or it is not in GGUF.
    """
    base, _, tag = name.removeprefix(PREFIX).partition(":")
    shown = f"{base}:{tag or DEFAULT_TAG}"
    parts = base.split("/")
    parts = [*(_HOST, _NAMESPACE)[: 3 - len(parts)], *parts, tag or DEFAULT_TAG]
    for store in _stores(environ):
        manifest = store.joinpath("manifests", *parts)
        try:
            content = read_regular(manifest)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, NotReadable) as error:
            raise UnusableModel(f"The manifest of Ollama's '{shown}', {manifest}, cannot be read: {error}") from error
        return _model(shown, store, manifest, content)
    stores = " or ".join(str(store) for store in _stores(environ))
    known = ", ".join(list_ollama_models(environ)[:20])
    raise UnusableModel(
        f"Ollama has no model '{shown}' on this machine (looked in {stores}). "
        + (f"It has: {known}." if known else f"Download it with 'ollama pull {shown}', or set OLLAMA_MODELS.")
    )


def list_ollama_models(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of all models in Ollama's store, sorted; the default tag is left out."""
    names = set()
    for store in _stores(environ):
        for manifest in _manifests(store / "manifests"):
            *folders, name, tag = manifest.parts
            if folders[:1] == [_HOST]:
                folders = [] if folders[1:] == [_NAMESPACE] else folders[1:]
            names.add("/".join((*folders, name)) + ("" if tag == DEFAULT_TAG else f":{tag}"))
    return sorted(names)


def _stores(environ: Mapping[str, str]) -> list[Path]:
    if named := environ.get("OLLAMA_MODELS", ""):
        return [expanded(named)]
    return [expanded("~") / ".ollama" / "models", _SERVICE_STORE]


def _manifests(root: Path) -> Iterator[Path]:
    """Yield the paths of manifests relative to ``root``: host, namespace, name and tag."""
    found = 0
    for parent, folders, files in os.walk(root):
        inside = Path(parent).relative_to(root)
        folders[:] = [name for name in folders if not name.startswith(".")]
        if len(inside.parts) < 3:
            continue
        folders.clear()
        for tag in files:
            if tag.startswith("."):
                continue
            found += 1
            if found > _MAX_MANIFESTS:
                return
            yield inside / tag


def _model(name: str, store: Path, manifest: Path, content: bytes) -> OllamaModel:
    layers = _layers(name, manifest, content)
    if "model" not in layers:
        raise UnusableModel(
            f"Ollama's '{name}' has no weights in GGUF (its layers: {', '.join(sorted(layers)) or 'none'}): it runs in "
            "the cloud, or in another format. Choose another model."
        )
    if "adapter" in layers:
        raise UnusableModel(f"Ollama's '{name}' has an adapter, which is not supported. Merge it into the weights.")
    path = _blob(name, store, layers["model"])
    projector = _blob(name, store, layers["projector"]) if "projector" in layers else None
    parameters = _json(_blob(name, store, layers["params"])) if "params" in layers else {}
    system = _text(_blob(name, store, layers["system"])) if "system" in layers else ""
    return OllamaModel(
        name,
        path,
        path.stat().st_size,
        projector,
        parameters if isinstance(parameters, dict) else {},
        system,
    )


def _layers(name: str, manifest: Path, content: bytes) -> dict[str, str]:
    """Return the digest of the first layer of each type."""
    damaged = f"The manifest of Ollama's '{name}', {manifest}, is damaged. Repair it with 'ollama pull {name}'."
    try:
        listed = json.loads(content)["layers"]
        pairs = [(str(layer["mediaType"]), str(layer["digest"])) for layer in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnusableModel(damaged) from error
    layers: dict[str, str] = {}
    for media_type, digest in pairs:
        if not _DIGEST.fullmatch(digest):
            raise UnusableModel(damaged)
        layers.setdefault(media_type.removeprefix(_LAYER), digest)
    return layers


def _blob(name: str, store: Path, digest: str) -> Path:
    """Return the file of a layer; Ollama before version 0.1.30 wrote a colon into its name."""
    candidates = [store / "blobs" / digest.replace(":", "-"), store / "blobs" / digest]
    for path in candidates:
        try:
            if path.is_file():
                return path.absolute()
        except OSError as error:
            raise UnusableModel(f"{path} of Ollama's '{name}' cannot be looked up: {error.strerror}.") from error
    raise UnusableModel(
        f"A part of Ollama's '{name}' is missing: {candidates[0]}. Download it again with 'ollama pull {name}'."
    )


def _text(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8", "replace")
    except (OSError, NotReadable) as error:
        raise UnusableModel(f"{path} cannot be read: {error}") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise UnusableModel(
            f"{path}, the parameters of a model of Ollama, is no JSON. Pull the model again."
        ) from error
