"""``modelyard service``: installs the server as a service of systemd that belongs to the user, and removes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from modelyard.cli.command_line import CommandGroup, SingleCommand
from modelyard.cli.messages import print_note, print_result
from modelyard.cli.model_names import DEFAULT_FILE
from modelyard.cli.service.units import NAME, service_unit, socket_unit
from modelyard.cli.usage import UsageError
from modelyard.errors import ModelyardError

_RUN_S: Final = 30.0

service = typer.Typer(
    cls=CommandGroup,
    help="Run the server as a service of systemd.",
    add_completion=False,
    no_args_is_help=True,
)

UserOption = Annotated[
    bool, typer.Option("--user/--system", help="A service of this user. The units of a machine are only printed.")
]


class ServiceFailed(ModelyardError):
    """The service cannot be installed or removed; the message says why."""


@service.command("install", cls=SingleCommand)
def install(
    config: Annotated[
        Path, typer.Argument(metavar="TOML", help="The configuration to serve.", show_default=True)
    ] = DEFAULT_FILE,
    user: UserOption = True,
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="Start with the first connection, not at login.")
    ] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print the units; write and start nothing.")] = False,
) -> None:
    """Write the units of a service that serves a configuration, enable it, and start it.

    It may write into the caches and into models.d beside the configuration, and nowhere else.
    """
    from modelyard.config import load_config

    file = config.absolute()
    server = load_config(file).server
    if on_demand and server.port == 0:
        raise UsageError("--on-demand needs a port: port = 0 under [server] is a free one at each start.")
    units = {f"{NAME}.service": service_unit(_program(), file, is_activated=on_demand)}
    if on_demand:
        units[f"{NAME}.socket"] = socket_unit(server.host, server.port)
    if only_print or not user:
        for name, text in units.items():
            typer.echo(f"# {name}\n{text}")
        if not user:
            print_note("Write them to /etc/systemd/system, add User= to the service, and run systemctl daemon-reload.")
        return
    folder = _folder()
    _write(folder, units, writable=file.with_suffix(".d"))
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", f"{NAME}.{'socket' if on_demand else 'service'}")
    print_result(f"Installed {folder / NAME}.service. Its log: journalctl --user -fu {NAME}")
    print_note("To start it at boot, before you log in: loginctl enable-linger")


@service.command("remove", cls=SingleCommand)
def remove() -> None:
    """Stop the service of this user, and delete its units. Models and caches stay."""
    folder = _folder()
    units = [unit for unit in (f"{NAME}.socket", f"{NAME}.service") if (folder / unit).exists()]
    if not units:
        raise ServiceFailed(f"There is no {NAME}.service in {folder}.")
    _systemctl("disable", "--now", *units)
    for unit in units:
        (folder / unit).unlink(missing_ok=True)
    _systemctl("daemon-reload")
    print_result(f"Removed {', '.join(units)}.")


def _program() -> list[str]:
    """Return the words that start this command again, also where it was started as a module."""
    found = shutil.which(sys.argv[0])
    return [str(Path(found).absolute())] if found else [sys.executable, "-m", "modelyard"]


def _folder() -> Path:
    from modelyard.config.paths import user_folder

    return user_folder(os.environ, "XDG_CONFIG_HOME", ".config") / "systemd" / "user"


def _write(folder: Path, units: dict[str, str], writable: Path) -> None:
    """Write the units, and make the folder that the service writes models to: it may make none by itself."""
    try:
        writable.mkdir(exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ServiceFailed(f"{error.filename} cannot be written: {error.strerror}.") from error


def _systemctl(*arguments: str) -> None:
    """Run systemctl for the user.

    Raises:
        ServiceFailed: there is none, or it fails; the units are written by then.
    """
    command = ["systemctl", "--user", *arguments]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceFailed(f"{' '.join(command)} cannot be run: {error}. The units are in {_folder()}.") from error
    if ran.returncode:
        raise ServiceFailed(f"{' '.join(command)} failed: {ran.stderr.strip()} The units are in {_folder()}.")
