"""Reads JSON files with MCP servers as tables of ``[mcp]``, and finds the positions of their problems."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from modelyard.config.bounded_read import NotReadable, read_regular
from modelyard.config.document import Document
from modelyard.config.environment import Expansion, expand
from modelyard.config.json_positions import JsonPositions, positions_of_json
from modelyard.config.mcp_shapes import Servers, own_key, servers_of, with_plain_references
from modelyard.config.paths import absolute, absolute_program
from modelyard.config.tables import kind_of
from modelyard.errors.configuration import ConfigProblem, Location

MCP_CONFIG_VARIABLE: Final = "MCP_CONFIG_PATH"
"""Names the JSON file where no option and no key does, as in mistral.rs."""

_NOTHING: Final = Expansion({}, {}, (), {})


@dataclass(frozen=True)
class McpFile:
    """What a JSON file says of MCP servers. Locations in ``[mcp]`` count its servers from 0.

    Attributes:
        path: of the file.
        tables: of ``[[mcp.servers]]``.
        settings: keys of ``[mcp]``.
        problems: what is wrong so far, with positions.
        unresolved: references to variables that are not set, with the locations of their values in ``[mcp]``.
    """

    path: Path
    tables: tuple[dict[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[ConfigProblem, ...] = ()
    unresolved: tuple[ConfigProblem, ...] = ()
    _origins: Mapping[Location, Location] = field(default_factory=dict)
    _document: Document | None = None
    _expansion: Expansion = _NOTHING

    @property
    def is_readable(self) -> bool:
        """Whether the file could be read; otherwise its servers are not known."""
        return self._document is not None

    def place(self, problem: ConfigProblem) -> ConfigProblem:
        """Return a problem with one of the tables or settings with its position in this file."""
        location = self._written(problem.location)
        related = tuple(self._written(other) for other in problem.related)
        message, hint = self._expansion.redact(problem.message), self._expansion.redact(problem.hint)
        own, written = _name_of(problem.location), _name_of(location)
        if own != written and message.startswith(f"{own} "):
            message = f"{written}{message.removeprefix(own)}"
        placed = replace(problem, message=message, hint=hint, table="", location=location, related=related)
        return self._placed(placed)

    def follows_from_unknown_key(self, problem: ConfigProblem) -> bool:
        """Whether a problem may be there because a key of the same server is misspelt: what it sets is missing then."""
        server = self._written(problem.location[:3])
        is_missing = bool(problem.related) and all(other not in self._origins for other in problem.related)
        return is_missing and any(other.is_key and other.location[: len(server)] == server for other in self.problems)

    def _placed(self, problem: ConfigProblem) -> ConfigProblem:
        """Return a problem with a location in the file with its position."""
        key = ".".join(str(part) for part in problem.location)
        named = replace(problem, key=key, source=str(self.path))
        return named if self._document is None else self._document.place(named)

    def _written(self, location: Location) -> Location:
        """Return where a value of ``[mcp]`` stands in the file; () where it does not."""
        for length in range(len(location), 1, -1):
            if (origin := self._origins.get(location[:length])) is not None:
                return (*origin, *location[length:])
        return ()


def mcp_config_path(given: Path | None, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the JSON file that an option names, else the environment; None: neither does."""
    if given is not None:
        return absolute(given, Path.cwd())
    named = (os.environ if environment is None else environment).get(MCP_CONFIG_VARIABLE, "")
    return absolute(named, Path.cwd()) if named else None


def read_mcp_file(path: Path, environment: Mapping[str, str] | None = None) -> McpFile:
    """Read a JSON file. Its relative paths start at its folder. Problems are in the result, and never raised."""
    text = _read_text(path)
    if isinstance(text, ConfigProblem):
        return McpFile(path, problems=(replace(text, source=str(path)),))
    parsed = _parse(text)
    if isinstance(parsed, ConfigProblem):
        return McpFile(path, problems=(replace(parsed, source=str(path)),))
    value, positions = parsed
    return _file_of(path, text, value, positions, environment)


def mcp_tables(
    servers: Mapping[str, Any], base: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the table ``[mcp]`` of a mapping in one of the shapes of JSON files.

    Args:
        servers: the mapping.
        base: where relative paths start; None: the working directory.
        environment: variables that ``${VAR}`` refers to; None: those of the process.

    Raises:
        ValueError: it is in none of the shapes; the message says every problem.
    """
    found, expansion = _servers_of(dict(servers), environment)
    if problems := [*found.problems, *expansion.problems]:
        raise ValueError(" ".join(expansion.redact(_with_place(problem)) for problem in problems))
    _make_absolute(found, base or Path.cwd())
    return {**found.settings, "servers": found.tables}


def _with_place(problem: ConfigProblem) -> str:
    place = ".".join(str(part) for part in problem.location[: -1 if problem.is_key else None])
    return f"{place}: {problem}" if place else str(problem)


def _servers_of(document: Any, environment: Mapping[str, str] | None) -> tuple[Servers, Expansion]:
    """Return the servers of a document, with variables of the environment in its texts, and how these were replaced."""
    if not isinstance(document, dict):
        return servers_of(document), _NOTHING
    expansion = expand(with_plain_references(document), os.environ if environment is None else environment)
    expansion.read_scalars(lambda location: kind_of(own_key(location)))
    found = servers_of(expansion.values)
    # Where a variable is not set, nothing more is said about its reference.
    unresolved = {problem.location for problem in expansion.problems}
    found.problems = [problem for problem in found.problems if problem.location not in unresolved]
    return found, expansion


def _file_of(
    path: Path, text: str, value: Any, positions: JsonPositions, environment: Mapping[str, str] | None
) -> McpFile:
    found, expansion = _servers_of(value, environment)
    _make_absolute(found, path.parent)
    lines = tuple(line.removesuffix("\r") for line in text.split("\n"))
    document = Document({}, (), frozenset(), lines, text, positions.entries, frozenset())
    file = McpFile(
        path,
        tuple(found.tables),
        found.settings,
        _origins=found.origins,
        _document=document,
        _expansion=expansion,
    )
    repeated = [
        ConfigProblem(f"the key {at[-1]!r} occurs twice.", location=at, is_key=True) for at in positions.repeated
    ]
    unresolved = [(problem, _own_location(found, problem.location)) for problem in expansion.problems]
    problems = [*found.problems, *repeated, *(problem for problem, own in unresolved if not own)]
    return replace(
        file,
        problems=tuple(file._placed(_redacted(problem, expansion)) for problem in problems),
        unresolved=tuple(replace(problem, location=own) for problem, own in unresolved if own),
    )


def _name_of(location: Location) -> str:
    """Return the name of the key that a location leads to."""
    return next((part for part in reversed(location) if isinstance(part, str)), "")


def _own_location(found: Servers, location: Location) -> Location:
    """Return the location in ``[mcp]`` of a value of the file; () where it has none."""
    for own, origin in found.origins.items():
        if len(own) > 3 and location[: len(origin)] == origin:
            return (*own, *location[len(origin) :])
    return ()


def _redacted(problem: ConfigProblem, expansion: Expansion) -> ConfigProblem:
    return replace(problem, message=expansion.redact(problem.message), hint=expansion.redact(problem.hint))


def _make_absolute(found: Servers, base: Path) -> None:
    """Resolve relative paths of the servers, which start at the folder of the file."""
    for table in found.tables:
        if isinstance(cwd := table.get("cwd"), str):
            table["cwd"] = str(absolute(cwd, base))
        if isinstance(command := table.get("command"), str):
            table["command"] = absolute_program(command, base)


def _read_text(path: Path) -> str | ConfigProblem:
    try:
        return read_regular(path).decode("utf-8-sig")
    except FileNotFoundError:
        return ConfigProblem("There is no such file.", "mcp_config names a JSON file with MCP servers.")
    except NotReadable as error:
        return ConfigProblem(str(error))
    except OSError as error:
        return ConfigProblem(f"The file cannot be read: {error.strerror}.")
    except ValueError as error:
        if not isinstance(error, UnicodeDecodeError):
            return ConfigProblem("Its name holds a null character.")
        line = error.object.count(b"\n", 0, error.start) + 1
        return ConfigProblem(f"The file is not UTF-8 text: bad byte in line {line}.", "Save it as UTF-8.")


def _parse(text: str) -> tuple[Any, JsonPositions] | ConfigProblem:
    try:
        return json.loads(text), positions_of_json(text)
    except RecursionError:
        return ConfigProblem("not valid JSON: it nests too deep.")
    except json.JSONDecodeError as error:
        # Without the line of the file: it may hold a secret.
        hint = "JSON has no comments, and no comma behind the last item." if _is_of_people(text, error.pos) else ""
        message = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}."
        return ConfigProblem(message, hint, line=error.lineno, column=error.colno)
    except ValueError as error:  # a number with more digits than Python reads
        return ConfigProblem(f"not valid JSON: {error}.")


def _is_of_people(text: str, at: int) -> bool:
    """Whether at ``at`` is what people write and JSON does not have."""
    return text.startswith(("//", "/*", "#"), at) or text[at : at + 1] in ("}", "]", ",")
