"""Replaces ``${NAME}`` and ``${NAME:-default}`` in the strings of a file by variables of the environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.errors.configuration import ConfigProblem, Location

_REFERENCE: Final = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\{)"
)
_NUMBER: Final = re.compile(r"[+-]?\d{1,18}(?:(?P<fraction>\.\d{1,18}))?", re.ASCII)
_SCALARS: Final = ("boolean", "integer", "number")
_BOOLEANS: Final = {"true": True, "false": False}

# Shorter values would be replaced in words that they are a part of by chance.
_MIN_REDACTED_CHARS: Final = 4


@dataclass(frozen=True, slots=True)
class Expansion:
    """A mapping whose strings have been expanded.

    Attributes:
        values: the mapping.
        written: the text in the file of each string that was changed.
        problems: references that cannot be resolved; their strings are unchanged.
        variables: the values of the variables that were used -> how the file refers to them.
    """

    values: dict[str, Any]
    written: Mapping[Location, str]
    problems: tuple[ConfigProblem, ...]
    variables: Mapping[str, str]

    def read_scalars(self, kind_of: Callable[[Location], object]) -> None:
        """Put numbers and booleans in place of texts that are written as one ``${NAME}``, for keys that take them.

        Args:
            kind_of: returns the JSON type of the key at a location; None where it has several, or is unknown.
        """
        for location, written in self.written.items():
            kind = kind_of(location)
            if kind in _SCALARS and written.startswith("${") and written.find("}") + 1 == len(written):
                *tables, key = location
                table: Any = self.values
                for part in tables:
                    table = table[part]
                table[key] = scalar_of(table[key], kind)

    def redact(self, text: str) -> str:
        """Return the text with references in place of the values of variables, which may be secrets."""
        for value, reference in self.variables.items():
            text = text.replace(value, reference)
        return text


def expand(values: Mapping[str, Any], environment: Mapping[str, str]) -> Expansion:
    """Return the mapping with variables in place of references.

    ``$$`` stands for ``$``.
    """
    expander = _Expander(environment)
    expanded = expander.expand(values, ())
    longest_first = sorted(expander.variables, key=len, reverse=True)
    variables = {value: expander.variables[value] for value in longest_first if len(value) >= _MIN_REDACTED_CHARS}
    return Expansion(expanded, expander.written, tuple(expander.problems), variables)


class _Expander:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.written: dict[Location, str] = {}
        self.problems: list[ConfigProblem] = []
        self.variables: dict[str, str] = {}

    def expand(self, value: Any, location: Location) -> Any:
        match value:
            case dict():
                return {key: self.expand(inner, (*location, key)) for key, inner in value.items()}
            case list():
                return [self.expand(item, (*location, index)) for index, item in enumerate(value)]
            case str() if "$" in value:
                return self._text(value, location)
            case _:
                return value

    def _text(self, text: str, location: Location) -> str:
        failed: list[ConfigProblem] = []

        def resolve(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if match["escaped"]:
                return "$"
            if name is None:
                failed.append(
                    ConfigProblem(
                        "'${' begins no reference to an environment variable.",
                        "Write ${NAME} or ${NAME:-default}, or $${ for the characters themselves.",
                        location=location,
                    )
                )
                return match[0]
            found = self._environment.get(name)
            # As in a shell, the default also stands for a variable that is set but empty.
            if not found and default is not None:
                return default
            if found is None:
                failed.append(
                    ConfigProblem(
                        f"the environment variable {name} is not set.",
                        f"Set it, or write a default: ${{{name}:-value}}.",
                        location=location,
                    )
                )
                return match[0]
            self.variables[found] = f"${{{name}}}"
            return found

        expanded = _REFERENCE.sub(resolve, text)
        self.written[location] = text
        if failed:
            # A second one in the same text appears when the first is mended, like a second mistake in one word.
            self.problems.append(failed[0])
            return text
        return expanded


def scalar_of(text: str, kind: object) -> object:
    """Return the number or boolean that an expanded text holds, for a key of that JSON type; else the text itself."""
    match kind:
        case "boolean":
            return _BOOLEANS.get(text.strip().lower(), text)
        case "integer" | "number":
            match = _NUMBER.fullmatch(text.strip())
            if match is None or (kind == "integer" and match["fraction"]):
                return text
            return float(match[0]) if match["fraction"] else int(match[0])
        case _:
            return text
