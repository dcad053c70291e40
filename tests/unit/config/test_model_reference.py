"""What a person may write for a model, and the id that it is listed under."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.config import Config, Model, validate_config
from modelyard.config.model_reference import ModelReference, parse_model_reference, path_id, unique_ids


def parse(text: str, base: Path = Path("/base")) -> ModelReference:
    return parse_model_reference(text, base, is_there=lambda _: False)


def source(text: str, base: Path) -> str:
    return parse_model_reference(text, base).source


def test_a_name_of_something_in_the_base_folder_is_its_path(tmp_path: Path) -> None:
    assert source("google/gemma", tmp_path) == "google/gemma"
    (tmp_path / "google" / "gemma").mkdir(parents=True)
    assert source("google/gemma", tmp_path) == str(tmp_path / "google/gemma")


@pytest.mark.parametrize("typed", ["./smol", "../smol", "smol.gguf", "models/Smol.GGUF"])
def test_what_looks_like_a_path_is_one_even_if_nothing_is_there(tmp_path: Path, typed: str) -> None:
    assert source(typed, tmp_path) == str(tmp_path / typed)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert source("~/smol", tmp_path) == str(tmp_path / "home/smol")


def test_a_tilde_of_nobody_is_an_ordinary_name(tmp_path: Path) -> None:
    assert source("~nobody-of-that-name/smol", tmp_path) == str(tmp_path / "~nobody-of-that-name/smol")


def test_links_are_kept_because_a_cached_file_has_its_ending_only_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "smol.gguf").symlink_to("blob")
    assert source("smol.gguf", tmp_path) == str(tmp_path / "smol.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "org/name",
        " org/name ",
        "org/name:latest",
        "org/name@main",
        "hf.co/org/name",
        "HF.co/org/name:latest",
        "huggingface.co/org/name",
        "https://huggingface.co/org/name",
        "https://huggingface.co/org/name/",
        "https://huggingface.co/org/name?library=transformers",
        "https://www.huggingface.co/org/name/tree/main",
        "http://hf.co/org/name/blob/main/config.json",
        "hf:org/name",
        "hf://org/name",
        "hf://models/org/name",
    ],
)
def test_a_repository_is_the_same_however_it_is_written(text: str) -> None:
    assert parse(text) == ModelReference("hub", "org/name", "org/name")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("org/name@v1.0", "org/name@v1.0"),
        ("hf://org/name@v1.0", "org/name@v1.0"),
        ("https://huggingface.co/org/name/tree/v1.0", "org/name@v1.0"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", "org/name@refs/pr/1"),
    ],
)
def test_a_revision_is_a_part_of_the_source(text: str, source: str) -> None:
    assert parse(text) == ModelReference("hub", source, source)


@pytest.mark.parametrize("text", ["org/name:Q4_K_M", "hf.co/org/name:Q4_K_M", "https://hf.co/org/name:Q4_K_M"])
def test_a_tag_is_a_quantisation_and_a_part_of_the_id(text: str) -> None:
    assert parse(text) == ModelReference("hub", "org/name", "org/name:Q4_K_M", quant="q4_k_m")


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/org/name/blob/main/sub/smol-Q4_K_M.gguf",
        "https://huggingface.co/org/name/resolve/main/sub/smol-Q4_K_M.gguf?download=true",
        "huggingface.co/org/name/sub/smol-Q4_K_M.gguf",
        "hf://org/name/sub/smol-Q4_K_M.gguf",
    ],
)
def test_a_file_of_a_repository_has_the_id_that_it_has_on_disk(text: str) -> None:
    assert parse(text) == ModelReference("hub", "org/name", "smol-Q4_K_M", file="sub/smol-Q4_K_M.gguf")


def test_a_tag_may_be_a_file_as_ollama_takes_it() -> None:
    assert parse("hf.co/org/name:smol-Q4_K_M.gguf").file == "smol-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("text", "source", "listed"),
    [
        ("ollama:llama3.2", "ollama:llama3.2:latest", "llama3.2"),
        ("ollama:llama3.2:latest", "ollama:llama3.2:latest", "llama3.2"),
        ("ollama:qwen3:4b", "ollama:qwen3:4b", "qwen3:4b"),
        ("ollama:me/mine:v2", "ollama:me/mine:v2", "me/mine:v2"),
        ("ollama://qwen3:4b", "ollama:qwen3:4b", "qwen3:4b"),
        ("ollama:hf.co/org/name:Q4_K_M", "ollama:hf.co/org/name:Q4_K_M", "hf.co/org/name:Q4_K_M"),
        ("https://ollama.com/library/qwen3:4b", "ollama:qwen3:4b", "qwen3:4b"),
    ],
)
def test_a_model_of_ollama_keeps_its_name(text: str, source: str, listed: str) -> None:
    assert parse(text) == ModelReference("ollama", source, listed)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///models/my%20smol.gguf", "/models/my smol.gguf"),
        ("file://localhost/models/smol.gguf", "/models/smol.gguf"),
        ("file://./smol.gguf", "/base/smol.gguf"),
        (".", "/base"),
    ],
)
def test_a_path_may_be_a_url(text: str, path: str) -> None:
    reference = parse(text)
    assert (reference.kind, reference.source) == ("path", path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not a model"),
        ("nul\0byte", "is not a model"),
        ("llama3.2", "'ollama:llama3.2'"),
        ("one two", "neither a path that exists nor a hub id"),
        ("a/b/c", "neither a path that exists nor a hub id"),
        ("https://example.com/smol.gguf", "not an address of the Hugging Face Hub"),
        ("s3://bucket/smol.gguf", "not an address of the Hugging Face Hub"),
        ("https://huggingface.co/datasets/org/name", "one of its datasets"),
        ("https://huggingface.co/org/name/blob/main/picture.png", "not a GGUF file"),
        ("https://huggingface.co/org", "neither a path"),
        ("https://[bad", "not an address"),
        ("file://host/smol.gguf", "the machine 'host'"),
        ("ollama:", "not a name of Ollama"),
        ("ollama:../../etc/passwd", "not a name of Ollama"),
        ("hf:../..", "neither a path"),
    ],
)
def test_a_text_that_names_no_model_says_why_and_raises_nothing(text: str, said: str) -> None:
    reference = parse(text)
    assert reference.kind == "unknown"
    assert (reference.source, reference.id) == (text, text)
    assert said in reference.problem


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        ("/m/Smol-Q4_K_M.gguf", "Smol-Q4_K_M"),
        ("/m/Smol.v2.GGUF", "Smol.v2"),
        ("/m/big-00001-of-00003.gguf", "big"),
        ("/m/Qwen3-4B", "Qwen3-4B"),
        ("/m/Qwen3-4B/", "Qwen3-4B"),
        ("/m/v1.5", "v1.5"),
        ("/m/x/..", "m"),
        ("/m/red\x1b[31m\nbad\udcff.gguf", "red_[31m_bad_"),
        ("/hub/models--org--my--name/snapshots/0123abc", "org/my--name"),
        ("/hub/models--org--name/snapshots/0123abc/smol.gguf", "smol"),
    ],
)
def test_the_id_of_a_path_is_its_name_without_what_is_no_part_of_it(path: str, listed: str) -> None:
    assert path_id(Path(path)) == listed


def test_models_of_one_name_get_ids_that_differ_and_the_first_keeps_its_own() -> None:
    references = [parse(f"/{folder}/model.gguf") for folder in ("a", "b", "c/b", "d")]
    assert unique_ids(references) == ["model", "b/model", "model-2", "d/model"]
    assert unique_ids(references[:2], taken={"model", "b/model"}) == ["a/model", "model-2"]


def test_one_model_that_is_named_twice_keeps_one_id_so_that_it_is_refused() -> None:
    assert unique_ids([parse("org/name"), parse("hf.co/org/name")]) == ["org/name", "org/name"]


def test_an_id_is_the_same_from_a_file_and_from_python() -> None:
    config = validate_config({"models": [{"model_id": "/a/model.gguf"}, {"model_id": "/b/model.gguf"}]})
    assert [model.id for model in config.models] == ["model", "b/model"]
    assert config.models[1].names == ("b/model", "/b/model.gguf")
    built = Config(models=(Model(model_id="/a/model.gguf"), Model(model_id="/b/x.gguf", alias="model")))
    assert [model.id for model in built.models] == ["a/model", "model"]
