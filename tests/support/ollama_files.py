"""A store of Ollama in a folder of a test, laid out as Ollama does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub.sources.ollama_store import read_ollama_model

LIBRARY = ("registry.ollama.ai", "library")


class OllamaFiles:
    """A store of Ollama in a folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {"OLLAMA_MODELS": str(root)}

    def add(self, *place: str, **layers: bytes) -> None:
        """Add a model at ``place`` below the folder of manifests, with the contents of its layers by type."""
        listed = []
        (self.root / "blobs").mkdir(exist_ok=True, parents=True)
        for kind, content in layers.items():
            digest = hashlib.sha256(content).hexdigest()
            (self.root / "blobs" / f"sha256-{digest}").write_bytes(content)
            listed.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
        self.write(json.dumps({"schemaVersion": 2, "layers": listed}), *place)

    def write(self, manifest: str, *place: str) -> None:
        """Write a manifest."""
        path = self.root.joinpath("manifests", *place)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(manifest)

    def read(self, name: str) -> Any:
        """Read a model."""
        return read_ollama_model(name, self.environ)

    def refusal(self, name: str) -> str:
        """The error of reading a model."""
        with pytest.raises(UnusableModel) as refused:
            self.read(name)
        return str(refused.value)
