"""Finds the models on this machine that ``[discover]`` serves: what to call them, and how to read their files.

Only names are read here, and Ollama's manifests; headers are read where the models are checked. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from modelyard.config.model_reference import path_id
from modelyard.errors import UnusableModel
from modelyard.hub.select.folder_models import WHOLE_FOLDER, folder_models
from modelyard.hub.select.gguf import gguf_models
from modelyard.hub.select.projector import is_projector_certain
from modelyard.hub.sources.folder import list_files
from modelyard.hub.sources.gpt4all import gpt4all_folders
from modelyard.hub.sources.hub_cache import hub_cache_folder, hub_snapshots
from modelyard.hub.sources.llama_cpp_cache import llama_cpp_folder, llama_cpp_models
from modelyard.hub.sources.lm_studio import lm_studio_folders
from modelyard.hub.sources.ollama_parameters import context_length, sampling_keys
from modelyard.hub.sources.ollama_store import PREFIX, list_ollama_models, read_ollama_model
from modelyard.hub.sources.quant_labels import label_in


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine, whose files were not read yet.

    Attributes:
        model_id: what ``model_id`` names it by.
        name: the id that it gets if no other model has it.
        qualifier: what is put before the name if another model has it: ``qualifier/name``.
        paths: its files and folders whose change means that it has to be checked again.
        keys: further keys of its ``[[models]]`` table.
        without_projector: whether a projector that lies beside it may belong to another model, so that it is not used.
    """

    model_id: str
    name: str
    qualifier: str
    paths: tuple[Path, ...]
    keys: Mapping[str, Any] = field(default_factory=dict)
    without_projector: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a store or folder.

    Attributes:
        models: the models, in a stable order.
        problems: sentences about models that cannot be read, by the name of the model.
        is_unreadable: whether the place itself could not be looked in, so that nothing is known of its models.
    """

    models: tuple[LocalModel, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    is_unreadable: bool = False


def find_folder_models(folder: Path) -> Found:
    """Return the models in a folder, and three levels below it."""
    try:
        files = list_files(folder)
    except UnusableModel as unusable:
        return Found(problems={str(folder): str(unusable)}, is_unreadable=True)
    return Found(tuple(_models_in(folder, files)))


def find_store_models(store: str, home: Path, environment: Mapping[str, str]) -> Found:
    """Return the models of a program, by the names in ``config.names.StoreName``.

    Args:
        store: the program.
        home: home folder of the user.
        environment: the environment, whose variables may name other folders.
    """
    try:
        return _STORES[store](home, environment)
    except OSError as error:
        return Found(problems={store: f"{error.filename}: {error.strerror}."}, is_unreadable=True)


def _hub_models(home: Path, environment: Mapping[str, str]) -> Found:
    folder = hub_cache_folder(home, environment)
    models: list[LocalModel] = []
    problems: dict[str, str] = {}
    for snapshot in hub_snapshots(folder) if folder.is_dir() else ():
        try:
            files = list_files(snapshot.folder)
        except UnusableModel as unusable:
            problems[snapshot.repo] = str(unusable)
            continue
        found = list(_models_in(snapshot.folder, files))
        labels = [label_in(Path(model.model_id).name) for model in found]
        for model, label in zip(found, labels, strict=True):
            if len(found) == 1:
                name = snapshot.repo
            elif label is not None and labels.count(label) == 1:
                name = f"{snapshot.repo}:{label}"
            else:
                name = f"{snapshot.repo}/{model.name}"
            models.append(_renamed(model, name, "huggingface"))
    return Found(tuple(models), problems)


def _ollama_models(home: Path, environment: Mapping[str, str]) -> Found:  # noqa: ARG001
    models: list[LocalModel] = []
    problems: dict[str, str] = {}
    for name in list_ollama_models(environment):
        try:
            model = read_ollama_model(name, environment)
        except UnusableModel as unusable:
            problems[f"{PREFIX}{name}"] = str(unusable)
            continue
        context = context_length(model.parameters)
        keys: dict[str, Any] = {
            "sampling": sampling_keys(model.parameters),
            "device": {} if context is None else {"max_seq_len": context},
            **({"system": model.system} if model.system else {}),
        }
        models.append(LocalModel(f"{PREFIX}{name}", name, "ollama", (model.path,), keys))
    return Found(tuple(models), problems)


def _lm_studio_models(home: Path, environment: Mapping[str, str]) -> Found:  # noqa: ARG001
    return _joined([find_folder_models(folder) for folder in lm_studio_folders(home)])


def _llama_cpp_models(home: Path, environment: Mapping[str, str]) -> Found:
    folder = llama_cpp_folder(home, environment)
    if not folder.is_dir():
        return Found()
    listed = llama_cpp_models(folder)
    named = [
        LocalModel(
            str(model.path),
            model.name,
            "llama.cpp",
            (model.path, folder),
            {"format": {"mmproj": model.projector}} if model.projector else {},
            without_projector=model.projector is None,
        )
        for model in listed
        if model.path.exists()
    ]
    known = {model.model_id for model in named}
    others = [model for model in find_folder_models(folder).models if model.model_id not in known]
    return Found((*named, *others))


def _gpt4all_models(home: Path, environment: Mapping[str, str]) -> Found:
    return _joined([find_folder_models(folder) for folder in gpt4all_folders(home, environment)])


_STORES: Final[Mapping[str, Callable[[Path, Mapping[str, str]], Found]]] = {
    "huggingface": _hub_models,
    "ollama": _ollama_models,
    "lmstudio": _lm_studio_models,
    "llama.cpp": _llama_cpp_models,
    "gpt4all": _gpt4all_models,
}


def _models_in(folder: Path, files: Sequence[str]) -> Iterator[LocalModel]:
    """Yield the models in a folder, by absolute paths; a folder with one GGUF file is named by that file."""
    is_checkpoint = any("/" not in name and name.endswith((".safetensors", ".uqff")) for name in files)
    below: dict[PurePosixPath, list[str]] = {}
    for found in folder_models(files):
        name = found if found != WHOLE_FOLDER or is_checkpoint else next(iter(gguf_models(files)))
        path = folder / name
        if not name.lower().endswith(".gguf"):
            yield LocalModel(str(path), path_id(path), path.parent.name, (path, path / "config.json"))
            continue
        parent = PurePosixPath(name).parent
        if parent not in below:
            inside = (PurePosixPath(other) for other in files)
            below[parent] = [str(other.relative_to(parent)) for other in inside if other.is_relative_to(parent)]
        is_certain = is_projector_certain(below[parent], path.name)
        yield LocalModel(
            str(path), path_id(path), path.parent.name, (path, path.parent), without_projector=not is_certain
        )


def _renamed(model: LocalModel, name: str, qualifier: str) -> LocalModel:
    return LocalModel(model.model_id, name, qualifier, model.paths, model.keys, model.without_projector)


def _joined(found: Sequence[Found]) -> Found:
    return Found(
        tuple(model for each in found for model in each.models),
        {name: problem for each in found for name, problem in each.problems.items()},
        is_unreadable=any(each.is_unreadable for each in found),
    )
