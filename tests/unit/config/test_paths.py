"""Which model ids mean a path, and where relative paths begin."""

from pathlib import Path

import pytest

from modelyard.config import Config, Model, load_config, validate_config
from modelyard.config.paths import absolute, user_folder
from modelyard.errors import ConfigError
from modelyard.system.typed_paths import exists, expanded, is_file, is_folder


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte"])
def test_a_name_that_no_file_can_have_is_not_there(tmp_path, name):
    path = absolute(name, tmp_path)
    assert not exists(path)
    assert not is_file(path)
    assert not is_folder(path)


def test_the_home_folder_of_a_user_that_does_not_exist_is_an_ordinary_name():
    assert expanded("~no-such-user/x") == Path("~no-such-user/x")


def test_a_user_without_a_home_folder_is_told_which_variable_to_set(monkeypatch):
    def no_home(_path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(ConfigError, match="Set HOME or XDG_CACHE_HOME"):
        user_folder({}, "XDG_CACHE_HOME", ".cache")
    assert user_folder({"XDG_CACHE_HOME": "/c"}, "XDG_CACHE_HOME", ".cache") == Path("/c")


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
