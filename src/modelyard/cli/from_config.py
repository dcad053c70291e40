"""``modelyard from-config``: serves or chats with the models of a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.messages import print_warning
from modelyard.cli.model_names import config_path
from modelyard.cli.options import (
    AllowedHostOption,
    ConfigArgument,
    ConfigOption,
    HostOption,
    MaxToolRoundsOption,
    McpConfigOption,
    McpPortOption,
    NoSupervisorOption,
    PortOption,
    server_keys,
)

if TYPE_CHECKING:
    from modelyard.config import Config


def from_config(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    allowed_host: AllowedHostOption = None,
    mcp_config: McpConfigOption = None,
    mcp_port: McpPortOption = None,
    max_tool_rounds: MaxToolRoundsOption = None,
    no_supervisor: NoSupervisorOption = False,
) -> None:
    """Serve the models of a TOML file, or chat with them where it says ``command = "run"``.

    ``modelyard serve models.toml`` serves them in either case.
    """
    serve_file(
        config_path(file, config, command="from-config"),
        server=server_keys(host, port, allowed_host, mcp_port, max_tool_rounds),
        mcp_config=mcp_config,
        is_supervised=not no_supervisor,
        may_chat=True,
    )


def serve_file(
    file: Path,
    *,
    server: Mapping[str, Any] | None = None,
    mcp_config: Path | None = None,
    is_supervised: bool = True,
    may_chat: bool = False,
) -> None:
    """Serve the models of a TOML file.

    Args:
        file: the file.
        server: keys of ``[server]`` that take the place of the file's.
        mcp_config: JSON file with MCP servers, in place of the one that the file names.
        is_supervised: as for ``host_server``.
        may_chat: whether ``command = "run"`` in the file starts a chat instead.

    Raises:
        ConfigError: the file is missing or wrong, or see ``host_server``.
        OptionError: the value of an option is invalid.
    """
    from modelyard.cli.typed_names import options_as_typed
    from modelyard.config import load_config, validate_config
    from modelyard.config.reader import ConfigReader

    with options_as_typed():
        # By itself, so that an error names the option, and not a key that is not in the file.
        validate_config({"server": dict(server or {}), "models": [{"model_id": "org/name"}]})

    def read_config() -> Config:
        return load_config(file, server=server, mcp_config=mcp_config)

    config = ConfigReader(read_config).read()
    _say_missing(file, config)
    if may_chat and config.command == "run":
        from modelyard.cli.chat.start import chat_with

        chat_with(config)
        return
    from modelyard.cli.hosting import host_server

    host_server(config, read_config, file=file, is_supervised=is_supervised)


def _say_missing(file: Path, config: Config) -> None:
    """Refuse models that are to be loaded at the start and are not there; warn of those that are loaded on demand.

    Raises:
        UnusableModels: a model that is to be loaded at the start is not there.
    """
    from modelyard.config import located, missing_models
    from modelyard.errors import UnusableModels

    if not (missing := missing_models(config.models)):
        return
    on_demand = {index for index, model in enumerate(config.models) if model.load == "on-demand"}
    problems = located(file, missing)
    if fatal := [problem for problem in problems if problem.location[1] not in on_demand]:
        raise UnusableModels(str(file), problems if len(fatal) == len(problems) else fatal, file)
    print_warning(str(UnusableModels(str(file), problems, file)))
