"""Which model ids mean a path, and where relative paths begin."""

from pathlib import Path

import pytest

from modelyard.config import Config, Model, load_config, validate_config
from modelyard.config.paths import absolute, exists, is_file


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte"])
def test_a_name_that_no_file_can_have_is_not_there(tmp_path, name):
    path = absolute(name, tmp_path)
    assert not exists(path)
    assert not is_file(path)


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
