"""Parses a Modelfile of Ollama. Pure.

Source: Ollama, docs/modelfile.mdx and parser/parser.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from modelyard.errors import InvalidRequest

_QUOTES: Final = '"""'
_INSTRUCTIONS: Final = frozenset(
    {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER", "PARSER", "REQUIRES"}
)


@dataclass
class Modelfile:
    """What a Modelfile says.

    Attributes:
        base: of FROM.
        parameters: values by name; a name that is given several times has several.
        system, template, adapter: the texts; "" where there is none.
        licenses: of each LICENSE.
        messages: role and content of each MESSAGE.
    """

    base: str = ""
    parameters: dict[str, list[str]] = field(default_factory=dict)
    system: str = ""
    template: str = ""
    adapter: str = ""
    licenses: list[str] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)


def parse_modelfile(text: str) -> Modelfile:
    """Return what a Modelfile says.

    Raises:
        InvalidRequest: an instruction is unknown, has no value or is not closed, or FROM is missing.
    """
    found, lines = Modelfile(), text.splitlines()
    number = 0
    while number < len(lines):
        line, at = lines[number].strip(), number + 1
        number += 1
        if not line or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        name, value = instruction.upper(), rest.strip()
        if name not in _INSTRUCTIONS:
            raise InvalidRequest(f"Modelfile, line {at}: {instruction!r} is no instruction.", "modelfile")
        opening = value.find(_QUOTES)
        if opening >= 0:
            head, inner = value[:opening], value[opening + len(_QUOTES) :]
            while _QUOTES not in inner:
                if number == len(lines):
                    raise InvalidRequest(f'Modelfile, line {at}: the text is not closed with """.', "modelfile")
                inner += "\n" + lines[number]
                number += 1
            value = head + inner[: inner.index(_QUOTES)].removeprefix("\n")
        elif len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if not value:
            raise InvalidRequest(f"Modelfile, line {at}: {name} has no value.", "modelfile")
        _note(found, name, value, at)
    if not found.base:
        raise InvalidRequest("The Modelfile has no FROM, which names the model that it begins with.", "modelfile")
    return found


def _note(found: Modelfile, name: str, value: str, line: int) -> None:
    first, _, rest = value.partition(" ")
    match name:
        case "FROM":
            found.base = value
        case "SYSTEM":
            found.system = value
        case "TEMPLATE":
            found.template = value
        case "ADAPTER":
            found.adapter = value
        case "LICENSE":
            found.licenses.append(value)
        case "PARAMETER" if rest.strip():
            found.parameters.setdefault(first.lower(), []).append(rest.strip().strip('"'))
        case "MESSAGE" if rest.strip():
            found.messages.append((first, rest.strip()))
        case "PARAMETER" | "MESSAGE":
            raise InvalidRequest(f"Modelfile, line {line}: {name} takes a name and a value.", "modelfile")
