"""``modelyard from-config``: serves or chats with the models of a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.hosting import host_server
from modelyard.cli.options import HostOption, NoSupervisorOption, PortOption, without_unset
from modelyard.config import Config, load_config
from modelyard.config.reader import ConfigReader


def from_config(
    file: Annotated[Path, typer.Option("--file", "-f", metavar="TOML", help="The configuration file.")],
    host: HostOption = None,
    port: PortOption = None,
    no_supervisor: NoSupervisorOption = False,
) -> None:
    """Serve, or chat with, the models of a TOML file."""

    def read_config() -> Config:
        return load_config(file, server=without_unset(host=host, port=port))

    config = ConfigReader(read_config).read()
    if config.command == "run":
        from modelyard.cli.chat import chat

        chat(config, None)
    else:
        host_server(config, read_config, is_supervised=not no_supervisor)
