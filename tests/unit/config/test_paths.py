"""Which model ids mean a path, and where relative paths begin."""

from pathlib import Path

import pytest

from modelyard.config import Config, Model, load_config, validate_config
from modelyard.config.paths import absolute, exists, is_file, source_of


def test_a_hub_id_stays_as_typed(tmp_path):
    assert source_of("google/gemma-4-E4B-it", tmp_path) == "google/gemma-4-E4B-it"


def test_an_id_that_names_something_in_the_base_folder_is_its_path(tmp_path):
    (tmp_path / "google" / "gemma").mkdir(parents=True)
    assert source_of("google/gemma", tmp_path) == str(tmp_path / "google/gemma")


@pytest.mark.parametrize("typed", ["./smol", "../smol", "smol.gguf", "models/Smol.GGUF"])
def test_an_id_that_looks_like_a_path_is_one_even_if_nothing_is_there(tmp_path, typed):
    assert source_of(typed, tmp_path) == str(tmp_path / typed)


def test_an_absolute_id_is_a_path(tmp_path):
    assert source_of("/models/smol", tmp_path) == "/models/smol"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert source_of("~/smol", tmp_path) == str(tmp_path / "home/smol")


def test_a_tilde_of_nobody_is_an_ordinary_name(tmp_path):
    assert source_of("~nobody-of-that-name/smol", tmp_path) == str(tmp_path / "~nobody-of-that-name/smol")


def test_links_are_kept_because_a_cached_file_has_its_ending_only_as_a_link(tmp_path):
    (tmp_path / "blob").write_bytes(b"")
    (tmp_path / "smol.gguf").symlink_to("blob")
    assert source_of("smol.gguf", tmp_path) == str(tmp_path / "smol.gguf")


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte"])
def test_a_name_that_no_file_can_have_is_not_there(tmp_path, name):
    path = absolute(name, tmp_path)
    assert not exists(path)
    assert not is_file(path)
    assert source_of(name, tmp_path) == name


def test_paths_in_a_file_are_relative_to_the_folder_of_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "etc"
    (folder / "smol").mkdir(parents=True)
    (folder / "chat.jinja").write_text("{{ messages }}")
    (folder / "models.toml").write_text('[[models]]\nmodel_id = "smol"\nchat_template = "chat.jinja"\n')
    monkeypatch.chdir(tmp_path)
    model = load_config(Path("etc/models.toml")).models[0]
    assert model.model_id == model.id == "smol"
    assert model.source == str(folder / "smol")
    assert model.chat_template == folder / "chat.jinja"


def test_paths_on_the_command_line_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "smol").mkdir()
    monkeypatch.chdir(tmp_path)
    assert validate_config({"models": [{"model_id": "smol"}]}).models[0].source == str(tmp_path / "smol")


def test_a_model_built_in_python_takes_paths_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Model(model_id="./smol", chat_template=Path("chat.jinja"))
    assert model.source == str(tmp_path / "smol")
    assert model.chat_template == tmp_path / "chat.jinja"
    assert Config(models=(model,)).models[0].source == model.source
