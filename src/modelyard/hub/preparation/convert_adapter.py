"""Converts LoRA adapters of PEFT to GGUF, each once: the cache of converted models keeps them by their contents."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.peft import PeftAdapter
from modelyard.hub.preparation.convert_checkpoint import log_notice
from modelyard.hub.preparation.plan import Stores
from modelyard.hub.sources.converted import key_of
from modelyard.hub.sources.converter_process import run_converter
from modelyard.hub.sources.disk import check_disk_space
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.listing import OnProgress
from modelyard.hub.sources.llama_converter import ENGINE, check_converter, engine_version
from modelyard.system.file_digest import contents_digest, samples_digest

LABEL: Final = "LoRA-F32"
"""Type of converted adapters in the cache."""

# Version of this project's part in a conversion: another number makes all adapters be converted again.
_RECIPE: Final = 1
_CONFIG: Final = "config.json"


def find_converted(adapter: PeftAdapter, model: str, stores: Stores) -> Path | None:
    """Return the GGUF file that an earlier conversion of an adapter made; None if there is none.

    Args:
        adapter: the adapter.
        model: source of the model that it is served with.
        stores: where converted files are.

    Raises:
        UnusableModel: a file of the adapter cannot be read.
    """
    entry = stores.converted.find(_key(adapter, model))
    if entry is None:
        return None
    stores.converted.mark_used(entry)
    return entry.path


def convert_adapter(adapter: PeftAdapter, model: str, stores: Stores, on_progress: OnProgress) -> Path:
    """Return the GGUF file of an adapter, converting it if no earlier conversion made it.

    The configuration of its base model is taken from the adapter's own folder, the folder or repository of the model
    that it is served with, or that which the adapter names, the first that there is. Weights are not needed.

    Args:
        adapter: the adapter.
        model: source of the model that it is served with.
        stores: where files come from and where converted ones go.
        on_progress: returning False cancels the conversion.

    Raises:
        UnusableModel: the converter is not installed, the configuration of the base model is not found, or the adapter
            cannot be converted.
    """
    if (made := find_converted(adapter, model, stores)) is not None:
        return made
    check_converter("adapter")
    key, name = _key(adapter, model), adapter.folder.name
    with stores.converted.locked(key, on_progress) as folder:
        if (entry := stores.converted.find(key)) is not None:
            return entry.path
        check_disk_space(folder, adapter.size_bytes, f"The adapter '{name}' cannot be converted")
        partial = folder / "adapter.partial"
        with tempfile.TemporaryDirectory(prefix="base-", dir=folder) as base:
            (Path(base) / _CONFIG).write_bytes(_base_config(adapter, model, stores, on_progress))
            arguments = [str(adapter.folder), str(partial), "--base", base, "--name", name]
            run_converter("adapter", arguments, on_progress, log_notice(name))
        if _key(adapter, model) != key:
            raise UnusableModel(
                f"{adapter.folder}: It was changed while it was converted. Try again when it is complete."
            )
        source = str(adapter.folder)
        return stores.converted.complete(folder, partial, name=f"{name}-{LABEL}.gguf", source=source, label=LABEL).path


def _key(adapter: PeftAdapter, model: str) -> str:
    """Return the digest that names a conversion.

    The configuration of a base model on this machine counts by its contents, that of a repository by the name: a hub
    is not asked for it again. What was converted for another architecture or other shapes is refused beside its model.
    """
    files = [adapter.config, adapter.weights]
    try:
        local = _local_config(adapter, model)
        if local is not None:
            files.append(local)
        facts = {
            "recipe": _RECIPE,
            "contents": [contents_digest(files), samples_digest(files)],
            "base": [model, adapter.base, adapter.revision] if local is None else [],
            "converter": f"{ENGINE} {engine_version()}",
        }
    except OSError as error:
        raise UnusableModel(f"{error.filename} cannot be read: {error.strerror}. Check the path.") from error
    return key_of(facts)


def _local_config(adapter: PeftAdapter, model: str) -> Path | None:
    """Return the configuration of the base model, if it is on this machine outside of the hub's cache."""
    folders = [adapter.folder, *(Path(place) for place in (model, adapter.base) if Path(place).is_absolute())]
    return next((path for folder in folders if (path := folder / _CONFIG).is_file()), None)


def _base_config(adapter: PeftAdapter, model: str, stores: Stores, on_progress: OnProgress) -> bytes:
    """Return the contents of the base model's ``config.json``.

    Raises:
        UnusableModel: there is none; the message names where it was looked for, and where to put it.
    """
    if (local := _local_config(adapter, model)) is not None:
        try:
            return local.read_bytes()
        except OSError as error:
            raise UnusableModel(f"{local}: It cannot be read: {error.strerror}. Check the path.") from error
    reasons = []
    revision = f"@{adapter.revision}" if adapter.revision else ""
    for source in dict.fromkeys((model, f"{adapter.base}{revision}")):
        hub_id = HubId.parse(source)
        if hub_id is None:
            continue
        try:
            listing = stores.hub.list(hub_id)
            if _CONFIG in listing.names:
                return (stores.hub.fetch(listing, [_CONFIG], on_progress) / _CONFIG).read_bytes()
            reasons.append(f"'{hub_id}' has no {_CONFIG}.")
        except UnusableModel as unavailable:
            reasons.append(str(unavailable))
    why = " ".join(reasons) or "'base_model_name_or_path' names no repository, and no folder that has it."
    raise UnusableModel(
        f"{adapter.folder}: The configuration of the base model is needed to convert the adapter, and is not found: "
        f"{why} Put the {_CONFIG} of the base model into the adapter's folder."
    )
