"""``modelyard init``: a configuration of the models on this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.exit_codes import MODEL, OK, USAGE
from modelyard.config import load_config
from support.gguf_writer import tiny_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and a folder to work in."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("modelyard.hub.sources.ollama_store._SERVICE_STORE", home / "no")
    return home


def a_model(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_model())
    return path


def init(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["init", *arguments])


def check_passes(path: str = "models.toml") -> bool:
    return CliRunner().invoke(app, ["check", path]).exit_code == OK


def test_a_folder_becomes_a_configuration_that_passes_check() -> None:
    for name in ("a.gguf", "b/a.gguf", "default.gguf", "odd ${HOME} 'q\".gguf"):
        a_model(Path("models") / name)
    (Path("models") / "bad.gguf").write_text("no model")
    result = init("models")
    assert result.exit_code == OK
    assert "bad is left out" in result.stderr
    config = load_config(Path("models.toml"))
    assert [model.id for model in config.models] == ["a", "b/a", "models/default", "odd ${HOME} 'q\""]
    assert {model.load for model in config.models} == {"on-demand"}
    assert config.models[0].model_id == "./models/a.gguf"
    assert config.default_model_id == "a"
    text = Path("models.toml").read_text()
    assert text.startswith("#:schema file:///")
    assert "it fits this machine" in text
    assert '# model_id = "./models/bad.gguf"' in text
    assert check_passes()


def test_a_folder_beside_the_configuration_is_named_from_there() -> None:
    a_model(Path("..") / "models" / "a.gguf")
    a_model(Path("..") / "models" / "b.gguf")
    assert init("../models").exit_code == OK
    assert [model.model_id for model in load_config(Path("models.toml")).models] == [
        "../models/a.gguf",
        "../models/b.gguf",
    ]
    assert check_passes()


def test_the_cache_of_the_hub_is_known_by_the_short_name_too() -> None:
    assert init("hf").stderr.startswith("Hugging Face cache: ")


def test_a_file_is_never_overwritten_unless_that_is_asked_for() -> None:
    a_model(Path("models/a.gguf"))
    Path("models.toml").write_text("mine")
    result = init("models")
    assert result.exit_code == USAGE
    assert Path("models.toml").read_text() == "mine"
    assert init("models", "--force").exit_code == OK
    assert check_passes()
    assert sorted(path.name for path in Path().iterdir()) == ["models", "models.toml"]


def test_a_link_to_nowhere_is_not_written_through() -> None:
    a_model(Path("models/a.gguf"))
    Path("models.toml").symlink_to("elsewhere.toml")
    assert init("models").exit_code == USAGE
    assert not Path("elsewhere.toml").exists()


def test_models_of_other_programs_are_found(home: Path) -> None:
    a_model(home / ".lmstudio/models/org/x-GGUF/x.gguf")
    content = tiny_model()
    digest = hashlib.sha256(content).hexdigest()
    a_model(home / f".ollama/models/blobs/sha256-{digest}")
    manifest = home / ".ollama/models/manifests/registry.ollama.ai/library/tiny/1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    repository = home / "hub/models--org--cached"
    a_model(repository / "snapshots/abc/cached-Q4_0.gguf")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    result = init()
    assert [line.partition(":")[0] for line in result.stderr.splitlines()[:3]] == [
        "Hugging Face cache",
        "Ollama",
        "LM Studio",
    ]
    assert [model.id for model in load_config(Path("models.toml")).models] == ["org/cached", "tiny:1b", "x"]
    assert check_passes()


def test_a_place_without_models_says_where_it_looked_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelyard.hub.select.found_models.demo_models", list)
    result = init()
    assert result.exit_code == MODEL
    assert "Ollama: not on this machine" in result.stderr
    assert "modelyard init ./models" in result.stderr
    assert not Path("models.toml").exists()


def test_the_demo_models_are_offered_where_there_is_nothing_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = a_model(home / "demo/small.gguf")
    monkeypatch.setattr("modelyard.hub.select.found_models.demo_models", lambda: [demo])
    assert init("-o", "-").stdout.count("[[models]]") == 1


def test_the_models_of_this_folder_are_found_without_naming_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_model(Path("mine.gguf").absolute())
    monkeypatch.setattr("modelyard.hub.select.found_models.demo_models", lambda: [a_model(home / "demo/small.gguf")])
    written = init("-o", "-").stdout
    assert written.count("[[models]]") == 1
    assert "mine.gguf" in written


def test_nothing_is_written_where_no_model_can_be_served() -> None:
    Path("models").mkdir()
    Path("models/bad.gguf").write_text("no model")
    result = init("models")
    assert result.exit_code == MODEL
    assert "None of them can be served" in result.stderr
    assert not Path("models.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "There is no folder nowhere"),
        (("models", "-o", "models.yaml"), "must end in .toml"),
        (("models", "-o", "no/models.toml"), "there is no folder no"),
        (("models/a.gguf",), "models/a.gguf is a file"),
    ],
)
def test_what_cannot_be_looked_in_or_written_is_refused_at_once(arguments: tuple[str, ...], said: str) -> None:
    a_model(Path("models/a.gguf"))
    result = init(*arguments)
    assert result.exit_code == USAGE
    assert said in result.stderr
