"""``modelyard from-config``: serves or chats with the models of a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.cli.messages import print_warning
from modelyard.cli.model_names import config_path
from modelyard.cli.options import (
    AllowedHostOption,
    ConfigArgument,
    ConfigOption,
    HostOption,
    NoSupervisorOption,
    PortOption,
    without_unset,
)

if TYPE_CHECKING:
    from modelyard.config import Config


def from_config(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    allowed_host: AllowedHostOption = None,
    no_supervisor: NoSupervisorOption = False,
) -> None:
    """Serve the models of a TOML file, or chat with them where it says ``command = "run"``.

    ``modelyard serve models.toml`` serves them in either case.
    """
    serve_file(
        config_path(file, config, command="from-config"),
        host=host,
        port=port,
        allowed_hosts=allowed_host,
        is_supervised=not no_supervisor,
        may_chat=True,
    )


def serve_file(
    file: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    allowed_hosts: list[str] | None = None,
    is_supervised: bool = True,
    may_chat: bool = False,
) -> None:
    """Serve the models of a TOML file.

    Args:
        file: the file.
        host, port, allowed_hosts: take the place of the file's.
        is_supervised: as for ``host_server``.
        may_chat: whether ``command = "run"`` in the file starts a chat instead.

    Raises:
        ConfigError: the file is missing or wrong, or see ``host_server``.
        OptionError: the value of an option is invalid.
    """
    from modelyard.cli.typed_names import options_as_typed
    from modelyard.config import load_config, validate_config
    from modelyard.config.reader import ConfigReader

    server = without_unset(host=host, port=port, allowed_hosts=allowed_hosts or None)
    with options_as_typed():
        # By itself, so that an error names the option, and not a key that is not in the file.
        validate_config({"server": server, "models": [{"model_id": "org/name"}]})

    def read_config() -> Config:
        return load_config(file, server=server)

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
