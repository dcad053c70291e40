"""What a wheel and a source archive of Modelyard hold, and what they must not hold. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

PAGE = "modelyard/api/ui/static/"
NEEDED_FILES = ("modelyard/__main__.py", "modelyard/py.typed", "modelyard/config/models.schema.json")
NEEDED_PAGE_FILES = ("index.html", "sw.js", "manifest.webmanifest", "licences.json")
SOURCE_FILES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "sbom.cdx.json",
    "docs/man/modelyard.1",
    "PKG-INFO",
)

# Weights are published by others, and tests need what a user has not installed.
_WEIGHTS = re.compile(r"\.(gguf|uqff|safetensors|bin|pt|onnx)$")
_FOREIGN = re.compile(r"(^|/)(tests?|node_modules|__pycache__|\.venv|\.weights|\.bench)/|\.pyc$|(^|/)\.env$")


def wheel_problems(names: Collection[str]) -> list[str]:
    """Return what is wrong with the files of a wheel, a sentence each.

    Args:
        names: paths in the archive.
    """
    return [*_foreign(names), *_missing(names, ""), *_incomplete_wheel(names)]


def source_problems(names: Collection[str]) -> list[str]:
    """Return what is wrong with the files of a source archive, a sentence each.

    Args:
        names: paths in the archive, whose first part is the name and version of the project.
    """
    inner = {name.partition("/")[2] for name in names}
    roots = {name.partition("/")[0] for name in names}
    problems = [] if len(roots) == 1 else [f"It has several folders at its top: {', '.join(sorted(roots))}."]
    problems += [f"{name} is missing." for name in SOURCE_FILES if name not in inner]
    return [*problems, *_foreign(inner), *_missing(inner, "src/")]


def _foreign(names: Collection[str]) -> Iterator[str]:
    for name in sorted(names):
        if _WEIGHTS.search(name):
            yield f"{name} looks like weights."
        elif _FOREIGN.search(name):
            yield f"{name} does not belong there."


def _missing(names: Collection[str], folder: str) -> Iterator[str]:
    for name in NEEDED_FILES:
        if folder + name not in names:
            yield f"{folder}{name} is missing."
    absent = [name for name in NEEDED_PAGE_FILES if f"{folder}{PAGE}{name}" not in names]
    scripts = [name for name in names if re.fullmatch(re.escape(folder + PAGE) + r"assets/index-[^/]+\.js", name)]
    if absent or not scripts:
        what = ", ".join(absent) or "its program"
        yield f"The page is not whole: {what} is missing in {folder}{PAGE}. `make ui` builds it."


def _incomplete_wheel(names: Collection[str]) -> Iterator[str]:
    for ending in ("METADATA", "entry_points.txt", "licenses/LICENSE", "sboms/sbom.cdx.json"):
        if not any(re.fullmatch(rf"modelyard-[^/]+\.dist-info/{re.escape(ending)}", name) for name in names):
            yield f"{ending} is missing in .dist-info."
    if not any(re.fullmatch(r"modelyard-[^/]+\.data/data/share/man/man1/modelyard\.1", name) for name in names):
        yield "The manual page modelyard.1 is missing."
