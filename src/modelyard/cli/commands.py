"""The table of all commands. A command's module is imported when the command runs, or when its own help is shown.

To add a command, add one ``Command`` to ``COMMANDS``; help, completion and docs/command-line.md follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SERVE: Final = "Serve and chat"
RUNNING: Final = "A running server"
FILES: Final = "Models and files"
MACHINE: Final = "This machine"
GROUPS: Final = (SERVE, RUNNING, FILES, MACHINE)
"""The groups of commands, in the order in which the help shows them."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the command line.

    Attributes:
        name: the name as it is typed.
        home: where it is: ``module:function``, or ``module:app`` for a ``typer.Typer`` with commands of its own.
        summary: what it does, in one line of the help of all commands.
        group: the group under which it is shown, one of ``GROUPS``.
        examples: whole command lines that its help shows. A test parses each of them.
        aliases: other names, which the help of all commands does not show.
    """

    name: str
    home: str
    summary: str
    group: str
    examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


COMMANDS: Final = (
    Command("serve", "modelyard.cli.serve:serve", "Serve models over HTTP.", SERVE),
    Command("from-config", "modelyard.cli.from_config:from_config", "Serve the models of a TOML file.", SERVE),
    Command("run", "modelyard.cli.run:run", "Chat with a model, or ask it one question.", SERVE),
    Command("resolve", "modelyard.cli.resolve:resolve", "Show a model's files and memory, without loading it.", FILES),
    Command("quantize", "modelyard.cli.quantize:quantize", "Quantise a model.", FILES, aliases=("quantise",)),
    Command("cache", "modelyard.cli.cache:cache", "List and delete models on disk.", FILES),
    Command("doctor", "modelyard.cli.doctor:doctor", "Check this machine and installation.", MACHINE),
    Command(
        "install-converter",
        "modelyard.cli.install_converter:install_converter",
        "Install llama.cpp's converter from safetensors to GGUF.",
        MACHINE,
    ),
)

BY_NAME: Final[Mapping[str, Command]] = {
    name: command for command in COMMANDS for name in (command.name, *command.aliases)
}
"""Each command by its name and its aliases."""
