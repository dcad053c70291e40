"""What a command serves: models and configurations, named by arguments or by options.

In every command a model is an argument or ``-m``, and a configuration an argument that ends in .toml or ``-f``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.cli.usage import UsageError
from modelyard.errors import ConfigError
from modelyard.system.typed_paths import expanded, is_file, is_folder

# Suffixes of configurations, also of other tools: the reader of configurations explains what to do with those.
_CONFIG_SUFFIXES: Final = (".toml", ".yaml", ".yml", ".json", ".ini")
_CONFIG_NAMES: Final = ("modelfile",)
DEFAULT_FILE: Final = Path("models.toml")
"""Name of a configuration where none is given."""
_MODEL_SUFFIXES: Final = (".gguf", ".safetensors", ".uqff")


@dataclass(frozen=True, slots=True)
class Named:
    """What a command line names: models, or a configuration, or nothing."""

    models: tuple[str, ...] = ()
    config: Path | None = None


def read_names(arguments: Sequence[str], models: Sequence[str], config: Path | None, *, command: str) -> Named:
    """Return what a command line names, each model once.

    Args:
        arguments: the arguments.
        models: the values of ``-m``.
        config: the value of ``-f``.
        command: the command, for errors.

    Raises:
        UsageError: there are two configurations, or a configuration and a model.
    """
    configs = [*(argument for argument in arguments if is_config(argument)), *([] if config is None else [str(config)])]
    for name in models:
        if is_config(name):
            raise UsageError(f"-m {name}: this is a configuration. Write: modelyard {command} {name}")
    if config is not None and is_weights(str(config)):
        raise UsageError(
            f"-f {config}: this is a model, and -f is the configuration. Write: modelyard {command} {config}; to "
            "choose a file of a folder or repository, use --quantized-file."
        )
    named = tuple(dict.fromkeys((*(argument for argument in arguments if not is_config(argument)), *models)))
    if len(set(map(Path, configs))) > 1:
        raise UsageError(f"{command} takes one configuration, not {' and '.join(configs)}. Write all models into one.")
    if configs and named:
        raise UsageError(
            f"{configs[0]} is a configuration, and {named[0]} is a model. Name one of them; a further model is a "
            f"[[models]] table in {configs[0]}."
        )
    return Named(named, Path(configs[0]) if configs else None)


def one_model_name(argument: str | None, option: str | None, *, command: str) -> str:
    """Return the model of a command that takes one.

    Raises:
        UsageError: none is given, two are, or it is a configuration.
    """
    if argument is not None and option is not None and argument != option:
        raise UsageError(
            f"{argument} and --model {option} are two models, and {command} takes one. Leave one of them out."
        )
    name = argument if argument is not None else option
    if name is None:
        raise UsageError(f"No model is given. Write: modelyard {command} MODEL, such as ./model.gguf or org/name.")
    if is_config(name):
        raise UsageError(f"{name} is a configuration, and {command} takes a model.")
    return name


def config_path(argument: Path | None, option: Path | None, *, command: str) -> Path:
    """Return the configuration of a command that takes nothing else.

    Raises:
        UsageError: none is given, two are, or it is a model.
        ConfigError: it is a folder.
    """
    if argument is not None and option is not None and argument != option:
        raise UsageError(f"{argument} and --config {option} are two configurations. Leave one of them out.")
    path = argument if argument is not None else option
    if path is None:
        raise UsageError(f"No configuration is given. Write: modelyard {command} models.toml")
    if is_weights(str(path)):
        raise UsageError(f"{path} is a model, and {command} takes a configuration. Write: modelyard serve {path}")
    if is_folder(expanded(path)):
        raise ConfigError("", [_about_folder(path, command)])
    return path


def _about_folder(folder: Path, command: str) -> str:
    """Return what to do about a folder where a configuration is taken."""
    problem = f"{folder} is a folder, and {command} takes a configuration, which ends in .toml."
    if is_file(expanded(folder) / DEFAULT_FILE):
        return f"{problem} Write: modelyard {command} {shlex.quote(str(folder / DEFAULT_FILE))}"
    return (
        f"{problem} To write one of the models in it: modelyard init {shlex.quote(str(folder))}; to serve them as they "
        f"are: modelyard serve {shlex.quote(str(folder))}"
    )


def is_weights(name: str) -> bool:
    """Whether the name is one of a file of weights."""
    return name.lower().endswith(_MODEL_SUFFIXES)


def is_config(name: str) -> bool:
    """Whether the name is one of a configuration, also of another tool."""
    path = Path(name)
    if path.suffix.lower() == ".toml":
        return True
    return path.suffix.lower() in _CONFIG_SUFFIXES or path.name.lower() in _CONFIG_NAMES
