"""What came of comparisons, kept between runs: a run that was interrupted goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from architectures.places import cache

# Changes with the form of what is kept.
_FORMAT: Final = 2
_PACKAGES: Final = ("llama-cpp-python", "transformers", "torch", "tokenizers")


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    import modelyard

    return {"modelyard": modelyard.__version__, **{name: version(name) for name in _PACKAGES}}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one comparison.

    Attributes:
        name: of the architecture.
        described: all that its checkpoint is made of.
        facts: what was found.
    """

    name: str
    described: str
    facts: Mapping[str, Any]


class Results:
    """The results of one kind of comparison."""

    def __init__(self, kind: str) -> None:
        self._folder = cache() / "results" / kind

    def find(self, name: str, described: str) -> Result | None:
        """The result for an architecture as it is described now, with the installed versions."""
        path = self._folder / f"{name}.json"
        if not path.is_file():
            return None
        kept = json.loads(path.read_text("utf-8"))
        if (kept.get("format"), kept["described"], kept["versions"]) != (_FORMAT, described, versions()):
            return None
        return Result(name, described, kept["facts"])

    def keep(self, name: str, described: str, facts: Mapping[str, Any]) -> Result:
        """Keep a result in place of an older one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.json"
        partial = path.with_suffix(".partial")
        kept = {"format": _FORMAT, "described": described, "versions": versions(), "facts": dict(facts)}
        partial.write_text(json.dumps(kept, indent=1), "utf-8")
        partial.replace(path)
        return Result(name, described, facts)


def discard_conversions(name: str) -> None:
    """Remove the converted files of an architecture: of all of them they are many gigabytes."""
    shutil.rmtree(cache() / "served" / name / "modelyard", ignore_errors=True)
