"""Adds the MCP servers of a JSON file to a configuration, before both are checked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.config.mcp_file import McpFile, read_mcp_file
from modelyard.config.paths import absolute
from modelyard.errors.configuration import ConfigProblem, Location


@dataclass(frozen=True)
class MergedMapping:
    """A mapping with the servers of a JSON file.

    Attributes:
        mapping: the tables and keys of both.
        file: the JSON file; None: there is none.
        first: number of its first server among ``[[mcp.servers]]``, from 0.
        settings: keys of ``[mcp]`` that it sets.
    """

    mapping: dict[str, object]
    file: McpFile | None = None
    first: int = 0
    settings: frozenset[str] = frozenset()

    @property
    def unresolved(self) -> tuple[ConfigProblem, ...]:
        """Problems with variables of the environment in the JSON file, with their locations in ``mapping``."""
        return () if self.file is None else tuple(_shifted(problem, self.first) for problem in self.file.unresolved)

    def separated(self, problems: Sequence[ConfigProblem]) -> tuple[list[ConfigProblem], list[ConfigProblem]]:
        """Return the problems of the mapping itself, and those of the JSON file with their positions in it.

        What names unknown servers is left out where the JSON file cannot be read, since it may have them.
        """
        if self.file is None:
            return list(problems), []
        own, of_file = [], list(self.file.problems)
        known = {problem.location for problem in of_file if not problem.is_key}
        for problem in problems:
            if self._is_of_file(problem.location):
                counted = _shifted(problem, -self.first)
                placed = self.file.place(counted)
                if placed.location not in known and not self.file.follows_from_unknown_key(counted):
                    of_file.append(placed)
            elif self.file.is_readable or not _names_server(problem):
                own.append(problem)
        return own, sorted(of_file, key=lambda problem: (problem.line or 0, problem.column or 0))

    def _is_of_file(self, location: Location) -> bool:
        match location:
            case ("mcp", "servers", int(index), *_):
                return index >= self.first
            case ("mcp", str(key), *_):
                return key in self.settings
            case _:
                return False


def with_mcp_file(
    mapping: dict[str, object], base: Path, given: Path | None = None, otherwise: Path | None = None
) -> MergedMapping:
    """Return ``mapping`` with the servers of a JSON file: the given one, else that of ``[runtime] mcp_config``.

    Args:
        mapping: the tables and keys.
        base: where relative paths start.
        given: a file that takes the place of the key's.
        otherwise: the file where there is no such key.
    """
    runtime = mapping.get("runtime")
    named = runtime.get("mcp_config") if isinstance(runtime, dict) else None
    path = given
    if path is None and isinstance(named, str | Path) and str(named):
        path = absolute(named, base)
    if path is None and named is None:
        path = otherwise
    if path is None:
        return MergedMapping(mapping)
    file = read_mcp_file(path)
    mcp = mapping.get("mcp", {})
    # A table or list of another type is refused by the schema.
    if not isinstance(mcp, dict) or not isinstance(own := mcp.get("servers", []), list | tuple):
        return MergedMapping(mapping, file)
    merged = {**file.settings, **mcp, "servers": [*own, *file.tables]}
    table = runtime if isinstance(runtime, dict) else {}
    changed = {**mapping, "mcp": merged, "runtime": {**table, "mcp_config": str(path)}}
    return MergedMapping(changed, file, len(own), frozenset(file.settings.keys() - mcp.keys()))


def _shifted(problem: ConfigProblem, by: int) -> ConfigProblem:
    """Return a problem whose locations count the MCP servers from another one."""

    def shifted(location: Location) -> Location:
        match location:
            case ("mcp", "servers", int(index), *rest):
                return ("mcp", "servers", index + by, *rest)
            case _:
                return location

    return replace(problem, location=shifted(problem.location), related=tuple(map(shifted, problem.related)))


def _names_server(problem: ConfigProblem) -> bool:
    """Whether a problem is about the name of an MCP server in a list of a model or a key."""
    match problem.location:
        case ("models", int(), "mcp", int()) | ("server", "keys", int(), "mcp", int()):
            return True
        case _:
            return False
