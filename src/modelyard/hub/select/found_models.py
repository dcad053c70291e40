"""Finds the models that are on this machine: in a folder, or where other programs have downloaded them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.hub.select.folder_models import WHOLE_FOLDER, folder_models
from modelyard.hub.select.gguf import gguf_models
from modelyard.hub.sources.demo_models import demo_models
from modelyard.hub.sources.downloaded import Downloads
from modelyard.hub.sources.folder import list_files
from modelyard.hub.sources.gpt4all import gpt4all_folders
from modelyard.hub.sources.hub_id import HubId
from modelyard.hub.sources.huggingface import Hub
from modelyard.hub.sources.llama_cpp_cache import llama_cpp_folder
from modelyard.hub.sources.lm_studio import lm_studio_folders
from modelyard.hub.sources.ollama_store import PREFIX, list_ollama_models


@dataclass(frozen=True, slots=True)
class Place:
    """A place that was looked in.

    Attributes:
        name: what it is, as a person calls it.
        where: its folder or folders, as text; "" where it is not on this machine.
        models: what ``model_id`` names its models by.
        problem: why it could not be looked in, as a sentence; "" where it could.
    """

    name: str
    where: str = ""
    models: tuple[str, ...] = ()
    problem: str = ""


def find_in_folder(folder: Path) -> Place:
    """Return the models in a folder, by their absolute paths."""
    try:
        files = list_files(folder)
    except UnusableModel as unusable:
        return Place("folder", str(folder), problem=str(unusable))
    return Place("folder", str(folder), tuple(_paths(folder, files)))


def find_huggingface(home: Path, environment: Mapping[str, str]) -> Place:  # noqa: ARG001
    """Return the models in the cache of huggingface_hub, the most recently used first."""
    downloads, hub, name = Downloads(), Hub(is_offline=True), "Hugging Face cache"
    found: list[str] = []
    for download in downloads.list():
        try:
            listing = hub.list(HubId(download.repo))
        except UnusableModel:
            continue  # a download that was interrupted, or of another revision than the main one
        models = folder_models(listing.names)
        found += [download.repo if model == WHOLE_FOLDER else f"hf.co/{download.repo}/{model}" for model in models]
    return Place(name, str(downloads.folder) if downloads.folder.is_dir() else "", tuple(found))


def find_ollama(home: Path, environment: Mapping[str, str]) -> Place:
    """Return the models that Ollama has downloaded."""
    store = environment.get("OLLAMA_MODELS") or str(home / ".ollama" / "models")
    names = list_ollama_models(environment)
    is_there = bool(names) or Path(store).is_dir()
    return Place("Ollama", store if is_there else "", tuple(f"{PREFIX}{name}" for name in names))


def find_lm_studio(home: Path, environment: Mapping[str, str]) -> Place:  # noqa: ARG001
    """Return the models that LM Studio has downloaded."""
    return _of_folders("LM Studio", lm_studio_folders(home))


def find_llama_cpp(home: Path, environment: Mapping[str, str]) -> Place:
    """Return the models that llama.cpp has downloaded into its own cache."""
    folder = llama_cpp_folder(home, environment)
    return _of_folders("llama.cpp", [folder] if folder.is_dir() else [])


def find_gpt4all(home: Path, environment: Mapping[str, str]) -> Place:
    """Return the models that GPT4All has downloaded."""
    return _of_folders("GPT4All", gpt4all_folders(home, environment))


def find_demo(home: Path, environment: Mapping[str, str]) -> Place:  # noqa: ARG001
    """Return the demo models that are installed with Modelyard."""
    try:
        paths = demo_models()
    except UnusableModel as unusable:
        return Place("demo models", problem=str(unusable))
    folders = dict.fromkeys(str(path.parent) for path in paths)
    return Place("demo models", ", ".join(folders), tuple(map(str, paths)))


PLACES: Final[Mapping[str, Callable[[Path, Mapping[str, str]], Place]]] = {
    "huggingface": find_huggingface,
    "ollama": find_ollama,
    "lmstudio": find_lm_studio,
    "llama.cpp": find_llama_cpp,
    "gpt4all": find_gpt4all,
    "demo": find_demo,
}
"""Name of a place on the command line -> what looks in it, given the user's home folder and the environment."""


def _of_folders(name: str, folders: Sequence[Path]) -> Place:
    where = ", ".join(map(str, folders))
    try:
        models = [path for folder in folders for path in _paths(folder, list_files(folder))]
    except UnusableModel as unusable:
        return Place(name, where, problem=str(unusable))
    return Place(name, where, tuple(models))


def _paths(folder: Path, files: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the models in a folder, which is never named itself where a file in it is the model."""
    for name in folder_models(files):
        inside = next(iter(gguf_models(files)), name) if name == WHOLE_FOLDER else name
        yield str(folder / inside)
