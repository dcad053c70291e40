"""Configurations on what is no file, or does not answer."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from modelyard.config import Config, load_config, read_token
from modelyard.config.bounded_read import MAX_CONFIG_BYTES
from modelyard.config.reader import ConfigReader
from modelyard.errors import ConfigError

NAME_ONE = "Name a configuration, which ends in .toml."


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    return str(refused.value)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "models.toml"
    os.mkfifo(pipe)
    assert problem(pipe) == f"{pipe}: This is a named pipe, not a file. {NAME_ONE}"


def test_devices_and_folders_are_no_configuration(tmp_path: Path) -> None:
    device, folder = tmp_path / "endless.toml", tmp_path / "folder.toml"
    device.symlink_to("/dev/zero")
    folder.mkdir()
    assert problem(device) == f"{device}: This is a device, not a file. {NAME_ONE}"
    assert problem(folder) == f"{folder}: This is a folder, not a file. {NAME_ONE}"


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    large = tmp_path / "models.toml"
    with large.open("wb") as file:
        file.truncate(2**40)
    assert f"more than {MAX_CONFIG_BYTES} bytes" in problem(large)


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_text('[[models]]\nmodel_id = "m"\n')
    (tmp_path / "models.toml").symlink_to("real")
    assert load_config(tmp_path / "models.toml").models[0].id == "m"


class Disk:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = 0

    def read(self) -> Config:
        self.asked += 1
        assert self.answers.wait(30)
        return Config()


def test_a_file_system_that_hangs_is_not_waited_for() -> None:
    disk = Disk()
    reader = ConfigReader(disk.read, limit_s=0.01)
    with pytest.raises(ConfigError, match="could not be read within"):
        reader.read()
    disk.answers.set()


async def test_the_event_loop_goes_on_while_a_configuration_is_read() -> None:
    disk = Disk()
    reading = asyncio.create_task(ConfigReader(disk.read).read_async())
    while not disk.asked:  # noqa: ASYNC110 (a thread tells nobody)
        await asyncio.sleep(0)
    disk.answers.set()
    assert await asyncio.wait_for(reading, 30) == Config()


async def test_attempts_that_hang_do_not_pile_up() -> None:
    disk = Disk()
    reader = ConfigReader(disk.read, limit_s=0.01)
    for expected in ("could not be read within", "An earlier attempt", "An earlier attempt"):
        with pytest.raises(ConfigError, match=expected):
            await reader.read_async()
    assert disk.asked == 1
    disk.answers.set()


async def test_what_is_wrong_with_it_is_said() -> None:
    def read() -> Config:
        raise ConfigError("models.toml", ["It is wrong."])

    with pytest.raises(ConfigError, match=r"It is wrong\."):
        await ConfigReader(read).read_async()
    with pytest.raises(ConfigError, match=r"It is wrong\."):
        ConfigReader(read).read()


def test_a_token_on_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    with pytest.raises(ConfigError, match="cannot be read: This is a named pipe, not a file"):
        read_token(f"path:{tmp_path / 'token'}")
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        read_token(f"path:{tmp_path / 'none'}")
    (tmp_path / "kept").write_text("hf_abc\n")
    assert read_token(f"path:{tmp_path / 'kept'}") == "hf_abc"
