"""The models that ``serve`` is given: files, repositories, and folders of several models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.cli.messages import print_note
from modelyard.cli.options import ModelOptions, model_table, models_config
from modelyard.cli.usage import UsageError
from modelyard.system.typed_paths import is_folder

if TYPE_CHECKING:
    from modelyard.config import Config

# Options that choose a file of one folder or repository.
_OF_ONE_MODEL: Final = {"quantized_file": "--quantized-file", "mmproj": "--mmproj", "from_uqff": "--from-uqff"}
# Options that choose among the quantisations of one model, so that a folder is one.
_CHOOSING: Final = ("quant", "isq", "quantized_file", "from_uqff", "file_format")

_KEYS: Final = {
    "cpu": "cpu under [models.device]",
    "device_layers": "device_layers under [models.device]",
    "devices": "devices under [models.device]",
    "n_cpu_moe": "n_cpu_moe under [models.device]",
    "tensor_override": "tensor_overrides under [models.device]",
    "split_mode": "split_mode under [models.device]",
    "tensor_split": "tensor_split under [models.device]",
    "main_gpu": "main_gpu under [models.device]",
    "kv_on_host": "kv_on_host under [models.device]",
    "mlock": "mlock under [models.device]",
    "no_mmap": "mmap under [models.device]",
    "max_seqs": "max_seqs under [runtime]",
    "ctx": "max_seq_len under [models.device]",
    "quant": "quant under [models.quantization]",
    "isq": "isq under [models.quantization]",
    "file_format": "format under [models.format]",
    "quantized_file": "quantized_file under [models.format]",
    "mmproj": "mmproj under [models.format]",
    "from_uqff": "from_uqff under [models.quantization]",
    "imatrix": "imatrix under [models.quantization]",
    "dtype": "dtype under [[models]]",
    "kind": "kind under [[models]]",
    "token_source": "token_source under [hub]",
    "chat_template": "chat_template under [[models]]",
}


def served_models(
    names: Sequence[str],
    options: ModelOptions,
    *,
    server: Mapping[str, Any] | None = None,
    mcp_config: Path | None = None,
    discovers: bool = False,
) -> Config:
    """Return the configuration of several models; the first is the default.

    A folder of several models stands for each of them, which is loaded when it is first asked for.

    Args:
        names, options: as on the command line.
        server, mcp_config, discovers: as for ``models_config``.

    Raises:
        UsageError: an option is for one model, and there are several; or a folder has no model.
        OptionError: the value of an option is invalid, or a folder cannot be read.
    """
    tables = _without_repetition([table for name in names for table in _tables(name, options)])
    if len(tables) > 1:
        for field, option in _OF_ONE_MODEL.items():
            if getattr(options, field) is not None:
                raise UsageError(
                    f"{option} names a file of one model, and {len(tables)} are given. Write the models into a TOML "
                    f"file, with {_KEYS[field]}."
                )
    config = models_config(tables, options, server=server, mcp_config=mcp_config, discovers=discovers)
    for model in config.models:
        if model.id != model.reference.id:
            print_note(f"{model.model_id} is served as '{model.id}': '{model.reference.id}' is another model.")
    return config


def refuse_model_options(options: ModelOptions, config: Path) -> None:
    """Refuse options of models beside a configuration, which has keys for them.

    Raises:
        UsageError: there is such an option.
    """
    for field in fields(options):
        if getattr(options, field.name) != field.default:
            option = "--format" if field.name == "file_format" else f"--{field.name.replace('_', '-')}"
            raise UsageError(
                f"{option} is for models that the command line names. In {config}, write {_KEYS[field.name]}."
            )


def _tables(name: str, options: ModelOptions) -> list[dict[str, Any]]:
    from modelyard.cli.typed_names import options_as_typed
    from modelyard.config.model_reference import parse_model_reference
    from modelyard.hub.select.folder_models import WHOLE_FOLDER, folder_models
    from modelyard.hub.sources.folder import list_files

    reference = parse_model_reference(name)
    folder = Path(reference.source)
    is_one = any(getattr(options, field) is not None for field in _CHOOSING)
    if reference.kind != "path" or is_one or not is_folder(folder):
        return [model_table(name, options)]
    with options_as_typed():
        found = folder_models(list_files(folder))
    if not found:
        raise UsageError(
            f"{name} has no model: no file in it ends in .gguf, and no folder in it is a checkpoint of safetensors."
        )
    if found == (WHOLE_FOLDER,):
        return [model_table(name, options)]
    return [
        {**model_table(str(model), options), "load": "on-demand"}
        for model in _usable_first([folder / model for model in found])
    ]


def _usable_first(models: Sequence[Path]) -> Sequence[Path]:
    """Return the models of a folder with those at its beginning behind the others that are no model, or damaged.

    The first one is the default. No more headers are read than it takes to find it.
    """
    from modelyard.errors import UnusableModel
    from modelyard.formats.gguf.read import read_header

    for number, model in enumerate(models):
        try:
            if model.is_file():
                read_header(model)
        except UnusableModel:
            continue  # The server says what is wrong with it.
        return [*models[number:], *models[:number]]
    return models


def _without_repetition(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each model once: a file may be named, and be in a folder that is named, too."""
    from modelyard.config.model_reference import parse_model_reference

    kept: dict[object, dict[str, Any]] = {}
    for table in tables:
        reference = parse_model_reference(table["model_id"])
        source = os.path.realpath(reference.source) if reference.kind == "path" else reference.source
        kept.setdefault((source, reference.quant, reference.file), table)
    return list(kept.values())
