"""Models in Ollama's store: a manifest names the layers, each of which is a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.hub.sources.ollama_store import list_ollama_models
from support.ollama_files import LIBRARY, OllamaFiles


@pytest.fixture
def store(tmp_path: Path) -> OllamaFiles:
    return OllamaFiles(tmp_path)


def test_a_model_is_read_with_its_projector_parameters_and_system_prompt(store: OllamaFiles) -> None:
    layers = {"model": b"GGUF", "projector": b"GGUF2", "params": b'{"temperature": 0.5}', "system": b"Be brief."}
    store.add(*LIBRARY, "qwen3", "4b", **layers)
    model = store.read("ollama:qwen3:4b")
    assert model.path.read_bytes() == b"GGUF"
    assert model.projector.read_bytes() == b"GGUF2"
    assert (model.name, model.size_bytes) == ("qwen3:4b", 4)
    assert model.parameters == {"temperature": 0.5}
    assert model.system == "Be brief."


@pytest.mark.parametrize("name", ["llama3.2", "ollama:llama3.2:latest", "ollama:library/llama3.2"])
def test_the_default_tag_and_namespace_may_be_left_out(store: OllamaFiles, name: str) -> None:
    store.add(*LIBRARY, "llama3.2", "latest", model=b"GGUF")
    assert store.read(name).path.read_bytes() == b"GGUF"


@pytest.mark.parametrize("place", [("registry.ollama.ai", "me", "mine", "v1"), ("hf.co", "me", "mine", "v1")])
def test_models_of_other_people_and_hosts_are_found(store: OllamaFiles, place: tuple[str, ...]) -> None:
    store.add(*place, model=b"GGUF")
    (name,) = list_ollama_models(store.environ)
    assert name == ("me/mine:v1" if place[0] != "hf.co" else "hf.co/me/mine:v1")
    assert store.read(name).path.read_bytes() == b"GGUF"


def test_an_unknown_model_is_refused_with_those_that_are_there(store: OllamaFiles) -> None:
    assert "OLLAMA_MODELS" in store.refusal("qwen3")
    store.add(*LIBRARY, "llama3.2", "latest", model=b"GGUF")
    store.add(*LIBRARY, "llama3.2", "1b", model=b"GGUF")
    assert "no model 'qwen3:latest'" in store.refusal("qwen3")
    assert "It has: llama3.2, llama3.2:1b." in store.refusal("qwen3")


def test_a_part_that_is_missing_is_named(store: OllamaFiles) -> None:
    store.add(*LIBRARY, "qwen3", "latest", model=b"GGUF")
    for blob in (store.root / "blobs").iterdir():
        blob.unlink()
    assert "ollama pull qwen3:latest" in store.refusal("qwen3")


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", '{"layers": 3}', '{"layers": [{"mediaType": "x", "digest": "sha256:../../etc/passwd"}]}', "[" * 100_000],
)
def test_a_damaged_manifest_is_refused(store: OllamaFiles, manifest: str) -> None:
    store.write(manifest, *LIBRARY, "qwen3", "latest")
    assert "is damaged" in store.refusal("qwen3")


def test_a_model_without_weights_in_gguf_or_with_an_adapter_is_refused(store: OllamaFiles) -> None:
    store.add(*LIBRARY, "cloud", "latest", params=b"{}")
    store.add(*LIBRARY, "tuned", "latest", model=b"GGUF", adapter=b"GGUF")
    assert "no weights in GGUF" in store.refusal("cloud")
    assert "adapter" in store.refusal("tuned")


def test_parameters_that_are_no_json_are_refused(store: OllamaFiles) -> None:
    store.add(*LIBRARY, "odd", "latest", model=b"GGUF", params=b"{")
    assert "is no JSON" in store.refusal("odd")
