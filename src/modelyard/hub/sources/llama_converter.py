"""Location and capabilities of llama.cpp's converter, of exactly the version that the engine is built from.

The converter runs only in child processes: a server imports neither the converter nor what it imports (torch,
transformers).
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
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel

ENGINE: Final = "llama-cpp-python"

# Import names of the Python packages that the converter needs.
PACKAGES: Final = ("torch", "transformers", "sentencepiece", "google.protobuf", "yaml", "requests", "tqdm")

INSTALL: Final = "make convert in a checkout, else pip install 'modelyard[convert]' && modelyard install-converter"

# Written last, so that a folder without it is an interrupted installation.
LICENCE: Final = "LICENSE"

_TABLES: Final = Path("conversion") / "__init__.py"


@dataclass(frozen=True, slots=True)
class KnownArchitectures:
    """Values of ``architectures`` in ``config.json`` for which the converter has a class.

    Attributes:
        text: language models.
        projectors: models whose vision or audio tower becomes a projector (mmproj).
    """

    text: frozenset[str]
    projectors: frozenset[str]


def engine_version() -> str:
    """Return the installed version of the engine's package; "" if it is not installed."""
    try:
        return version(ENGINE)
    except PackageNotFoundError:
        return ""


def engine_build() -> str:
    """Return what distinguishes this build of the engine from others of its version: sizes and times of its libraries.

    The same version may be compiled by another compiler, or for another processor.
    """
    spec = find_spec("llama_cpp")
    folders = [] if spec is None else spec.submodule_search_locations or []
    libraries = sorted(library for folder in folders for library in Path(folder, "lib").glob("lib*"))
    return " ".join(f"{each.name}:{each.stat().st_size}:{each.stat().st_mtime_ns}" for each in libraries)


def converter_folder() -> Path:
    """Return the folder of the installed engine's converter, in the Python environment that has the engine.

    It does not depend on XDG_CACHE_HOME, and two environments with two engines have two converters.
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
    """Return the folders for PYTHONPATH from which a child process imports ``conversion`` and ``gguf``."""
    folder = converter_folder()
    return str(folder), str(folder / "gguf-py")


def child_environment() -> dict[str, str]:
    """Return this process's environment variables, with the converter's folders added to PYTHONPATH."""
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join((*search_path(), *([inherited] if inherited else [])))}


def is_installed() -> bool:
    """Whether the converter of the installed engine is complete on disk."""
    return (converter_folder() / LICENCE).is_file()


def missing_parts() -> tuple[str, ...]:
    """Return the names of what must be installed before a conversion can run; () if nothing is missing."""
    packages = [name for name in PACKAGES if not _can_import(name)]
    return (*packages, *(() if is_installed() else ("llama.cpp's converter",)))


def check_converter(what: str = "model") -> None:
    """Check that conversions can run on this machine.

    Args:
        what: is to be converted.

    Raises:
        UnusableModel: a package is missing; the message names it and the command that installs it.
    """
    if missing := missing_parts():
        raise UnusableModel(
            f"Safetensors are converted with what is not installed ({', '.join(missing)}). Install it: {INSTALL} "
            f"(about 1 GB, most of it torch). Or name a GGUF file of the {what}."
        )


def known_architectures() -> KnownArchitectures | None:
    """Return the architectures that the installed converter can convert; None if no converter is installed.

    They are read from tables in the converter's source, without running it.

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
    except ModuleNotFoundError:  # the parent package is missing
        return False
