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
    Command(
        "serve",
        "modelyard.cli.serve:serve",
        "Serve models over HTTP.",
        SERVE,
        examples=(
            "modelyard serve ./smollm2.gguf",
            "modelyard serve ./smollm2.gguf ./gemma3.gguf --ctx 4096",
            "modelyard serve ./models",
            "modelyard serve Qwen/Qwen3-4B-GGUF:Q4_K_M",
            "modelyard serve ollama:llama3.2 --port 8080",
            "modelyard serve models.toml",
            "modelyard serve --discover",
        ),
    ),
    Command(
        "run",
        "modelyard.cli.run:run",
        "Chat with a model, or ask it one question.",
        SERVE,
        examples=(
            "modelyard run ./smollm2.gguf",
            "modelyard run models.toml",
            "modelyard run ./smollm2.gguf 'Why is the sky blue?' --temperature 0",
            "modelyard run org/name:Q4_K_M -i 'Review this change:' < change.diff",
            "modelyard run ./smollm2.gguf 'Name three rivers.' --schema rivers.json --json",
        ),
    ),
    Command(
        "launch",
        "modelyard.cli.client.launch:launch",
        "Start a coding agent on a running server.",
        SERVE,
        examples=("modelyard launch claude", "modelyard launch codex --model small", "modelyard launch aider --print"),
    ),
    Command(
        "from-config",
        "modelyard.cli.from_config:from_config",
        "Start what a TOML file describes.",
        SERVE,
        examples=("modelyard from-config models.toml", "modelyard from-config -f models.toml --port 8080"),
    ),
    Command(
        "deploy",
        "modelyard.cli.deploy:deploy",
        "Serve models on the nodes of a Ray cluster.",
        SERVE,
        examples=(
            "modelyard deploy models.toml",
            "modelyard deploy -f models.toml --address auto --host 0.0.0.0",
            "modelyard deploy models.toml --kuberay --image registry/modelyard-ray:1",
        ),
    ),
    Command(
        "ps",
        "modelyard.cli.client.ps:ps",
        "Show the models that are loaded.",
        RUNNING,
        examples=("modelyard ps", "modelyard ps --json", "modelyard ps --address http://head:8000"),
        aliases=("status",),
    ),
    Command(
        "list",
        "modelyard.cli.client.list:list_models",
        "List the models of a running server.",
        RUNNING,
        examples=("modelyard list", "modelyard list --url gpu-box:1234"),
        aliases=("ls",),
    ),
    Command(
        "show",
        "modelyard.cli.client.show:show",
        "Show one model, of a running server or not.",
        RUNNING,
        examples=("modelyard show small", "modelyard show org/name:Q4_K_M"),
    ),
    Command(
        "load",
        "modelyard.cli.client.load:load",
        "Load models.",
        RUNNING,
        examples=("modelyard load small", "modelyard load small large"),
    ),
    Command(
        "unload",
        "modelyard.cli.client.unload:unload",
        "Free the memory of models.",
        RUNNING,
        examples=("modelyard unload small", "modelyard unload small --now"),
    ),
    Command(
        "park",
        "modelyard.cli.client.unload:park",
        "Free models but for their weights.",
        RUNNING,
        examples=("modelyard park small",),
    ),
    Command(
        "plan",
        "modelyard.cli.client.plan:plan",
        "Show what a load, or a start, would do.",
        RUNNING,
        ("modelyard plan large", "modelyard plan -f models.toml", "modelyard plan models.toml --write"),
    ),
    Command(
        "logs",
        "modelyard.cli.client.logs:logs",
        "Show or follow the server's log.",
        RUNNING,
        examples=("modelyard logs -f", "modelyard logs --since 10m -m small"),
    ),
    Command(
        "events", "modelyard.cli.client.events:events", "Follow what happens to models.", RUNNING, ("modelyard events",)
    ),
    Command(
        "reload",
        "modelyard.cli.client.reload:reload",
        "Apply a changed configuration, or load models anew.",
        RUNNING,
        examples=("modelyard reload --dry-run", "modelyard reload", "modelyard reload small"),
    ),
    Command(
        "stop",
        "modelyard.cli.client.stop:stop",
        "Stop the server, or unload models.",
        RUNNING,
        examples=("modelyard stop", "modelyard stop --now", "modelyard stop small"),
    ),
    Command(
        "pull",
        "modelyard.cli.client.pull:pull",
        "Download a model without loading it.",
        FILES,
        examples=("modelyard pull small", "modelyard pull org/model-GGUF:q4_k_m"),
    ),
    Command(
        "search",
        "modelyard.cli.search:search",
        "Find models on the Hugging Face Hub.",
        FILES,
        examples=("modelyard search qwen3 4b", "modelyard search gemma --limit 3 --json"),
    ),
    Command(
        "rm",
        "modelyard.cli.cache:remove",
        "Delete a downloaded model.",
        FILES,
        examples=("modelyard rm Qwen/Qwen3-4B-GGUF", "modelyard rm org/model-GGUF:q8_0 --yes"),
    ),
    Command(
        "check",
        "modelyard.cli.check:check",
        "Find every mistake in a configuration.",
        FILES,
        examples=("modelyard check", "modelyard check -f models.toml --json", "modelyard check --schema"),
    ),
    Command(
        "init",
        "modelyard.cli.init:init",
        "Write a configuration of the models on this machine.",
        FILES,
        examples=("modelyard init", "modelyard init ./models", "modelyard init ollama -o -"),
    ),
    Command(
        "resolve",
        "modelyard.cli.resolve:resolve",
        "Show a model's files and memory, without loading it.",
        FILES,
        examples=(
            "modelyard resolve ./smollm2.gguf",
            "modelyard resolve Qwen/Qwen3-4B --quant auto",
            "modelyard resolve models.toml --json",
        ),
    ),
    Command(
        "tune",
        "modelyard.cli.tune:tune",
        "Show what each quantisation of a model takes and gives here.",
        FILES,
        examples=("modelyard tune Qwen/Qwen3-4B", "modelyard tune ./checkpoint --profile quality --json"),
    ),
    Command(
        "quantize",
        "modelyard.cli.quantize:quantize",
        "Quantise a model into a file.",
        FILES,
        examples=(
            "modelyard quantize ./Qwen3-4B -o qwen3-4b-q4_k_m.gguf --isq 4",
            "modelyard quantize Qwen/Qwen3-4B -o uqff --isq q4k,q8_0",
        ),
        aliases=("quantise",),
    ),
    Command(
        "cache",
        "modelyard.cli.cache:cache",
        "List and delete models on disk.",
        FILES,
        examples=("modelyard cache list", "modelyard cache delete Qwen/Qwen3-4B"),
    ),
    Command(
        "mcp",
        "modelyard.cli.mcp.commands:mcp",
        "Check MCP servers, call their tools, and be one.",
        FILES,
        examples=(
            "modelyard mcp check",
            "modelyard mcp check --mcp-config mcp.json",
            "modelyard mcp list -f models.toml",
            'modelyard mcp call files_read_file \'{"path": "notes.txt"}\'',
            "modelyard mcp serve",
            "modelyard mcp serve models.toml",
        ),
    ),
    Command(
        "service",
        "modelyard.cli.service.commands:service",
        "Run the server as a service of systemd.",
        MACHINE,
        examples=(
            "modelyard service install models.toml",
            "modelyard service install models.toml --on-demand",
            "modelyard service install models.toml --print",
            "modelyard service remove",
        ),
    ),
    Command(
        "doctor",
        "modelyard.cli.doctor:doctor",
        "Check this machine and installation.",
        MACHINE,
        examples=("modelyard doctor", "modelyard doctor models.toml --json"),
    ),
    Command(
        "install-converter",
        "modelyard.cli.install_converter:install_converter",
        "Install llama.cpp's converter from safetensors.",
        MACHINE,
        examples=("modelyard install-converter",),
    ),
    Command(
        "help",
        "modelyard.cli.help_command:show_help",
        "Show the help of a command.",
        MACHINE,
        examples=("modelyard help serve", "modelyard help exit-codes"),
    ),
    Command(
        "version",
        "modelyard.cli.help_command:show_version",
        "Print the version.",
        MACHINE,
        examples=("modelyard version",),
    ),
)

BY_NAME: Final[Mapping[str, Command]] = {
    name: command for command in COMMANDS for name in (command.name, *command.aliases)
}
"""Each command by its name and its aliases."""
