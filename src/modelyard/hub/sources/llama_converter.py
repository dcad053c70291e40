"""llama.cpp's own converter, of exactly the version that the engine is built from.

The converter runs in child processes alone: nothing of it, and nothing that it imports (torch, transformers), is ever
imported by a server. Here is where it lies, and what it can convert.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import site
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel

ENGINE: Final = "llama-cpp-python"

# Python packages that the converter imports, by the names that they are imported by.
PACKAGES: Final = ("torch", "transformers", "sentencepiece", "google.protobuf", "yaml", "requests", "tqdm")

INSTALL: Final = "make convert in a checkout, else pip install 'modelyard[convert]' && modelyard install-converter"

# Written last, so that a folder without it is an interrupted installation.
LICENCE: Final = "LICENSE"

_TABLES: Final = Path("conversion") / "__init__.py"


@dataclass(frozen=True, slots=True)
class KnownArchitectures:
    """Values of ``architectures`` in ``config.json`` that the converter has a class for.

    Attributes:
        text: language models.
        projectors: models whose vision or audio tower becomes a projector (mmproj).
    """

    text: frozenset[str]
    projectors: frozenset[str]


def engine_version() -> str:
    """The installed version of the package that the engine is; "" where none is installed."""
    try:
        return version(ENGINE)
    except PackageNotFoundError:
        return ""


def converter_folder() -> Path:
    """Where the converter of the installed engine belongs: in the Python environment that has the engine.

    A change of XDG_CACHE_HOME does not lose it, and two environments with two engines keep two converters.
    """
    spec = importlib.util.find_spec("llama_cpp")
    is_user_install = (
        spec is not None
        and spec.origin is not None
        and site.ENABLE_USER_SITE
        and Path(spec.origin).is_relative_to(site.getusersitepackages())
    )
    scheme = sysconfig.get_preferred_scheme("user" if is_user_install else "prefix")
    return Path(sysconfig.get_path("data", scheme)) / "share" / "modelyard" / f"llama.cpp-{engine_version()}"


def search_path() -> tuple[str, str]:
    """Folders for PYTHONPATH, from which a child process imports ``conversion`` and ``gguf``."""
    folder = converter_folder()
    return str(folder), str(folder / "gguf-py")


def child_environment() -> dict[str, str]:
    """Environment variables of this process, with which a child imports the converter."""
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join((*search_path(), *([before] if before else [])))}


def is_installed() -> bool:
    """Whether the converter of the installed engine is complete on disk."""
    return (converter_folder() / LICENCE).is_file()


def missing_parts() -> tuple[str, ...]:
    """What a conversion still needs on this machine, as a person would call it; () if nothing."""
    packages = [name for name in PACKAGES if not _can_import(name)]
    return (*packages, *(() if is_installed() else ("llama.cpp's converter",)))


def check_converter() -> None:
    """Refuse a conversion that cannot run here.

    Raises:
        UnusableModel: names what is missing and the command that installs it.
    """
    if missing := missing_parts():
        raise UnusableModel(
            f"Safetensors are converted with what is not installed ({', '.join(missing)}). Install it: {INSTALL} "
            "(about 1 GB, most of it torch). Or name a GGUF file of the model."
        )


def known_architectures() -> KnownArchitectures | None:
    """What the installed converter can convert; None where none is installed.

    The tables are read from its source without running it.

    Raises:
        UnusableModel: the installed converter is damaged.
    """
    path = converter_folder() / _TABLES
    return _read_tables(path) if path.is_file() else None


@cache
def _read_tables(path: Path) -> KnownArchitectures:
    tables: dict[str, Mapping[str, str]] = {}
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, value = statement.target.id, statement.value
            if name in ("TEXT_MODEL_MAP", "MMPROJ_MODEL_MAP") and value is not None:
                tables[name] = ast.literal_eval(value)
    try:
        return KnownArchitectures(frozenset(tables["TEXT_MODEL_MAP"]), frozenset(tables["MMPROJ_MODEL_MAP"]))
    except KeyError as error:
        raise UnusableModel(
            f"{path}: llama.cpp's converter has no table {error}. Install it again: modelyard install-converter --force"
        ) from error


def _can_import(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that holds it is missing
        return False
