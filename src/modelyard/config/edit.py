"""Writes chosen values into a configuration's text, and leaves everything else as it is: comments, order, spelling."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.config.positions import Entry, positions
from modelyard.errors.configuration import Location

_LINE_REST: Final = re.compile(r"[^\n]*(?:\n|\Z)")
_SPACE: Final = re.compile(r"[ \t]*")
_COMMA_BEHIND: Final = re.compile(r"[ \t]*,[ \t]*")
_COMMA_BEFORE: Final = re.compile(r",?[ \t]*\Z")


class NotEditable(Exception):
    """The text is written in a way that cannot be edited without a risk."""


@dataclass(frozen=True, slots=True)
class ModelEdit:
    """What is written into the table of one model.

    Attributes:
        max_seq_len: for ``[models.device]``; None: it stays as it is.
        quant: for ``[models.quantization]``; None: it stays as it is; "": the key is taken out.
    """

    max_seq_len: int | None = None
    quant: str | None = None


def edited(text: str, edits: Mapping[int, ModelEdit]) -> str:
    """Return the text of a valid configuration with values of models replaced.

    Args:
        text: the TOML document.
        edits: by number of the model in the document, from 0.

    Raises:
        NotEditable: what comes out would not be the same document but for these values.
    """
    wanted = tomllib.loads(text)
    for number, edit in sorted(edits.items(), reverse=True):
        if edit.max_seq_len is not None:
            text = _with_value(text, number, "device", "max_seq_len", str(edit.max_seq_len))
        if edit.quant:
            text = _with_value(text, number, "quantization", "quant", f'"{edit.quant}"')
        elif edit.quant is not None:
            text = _without(text, ("models", number, "quantization", "quant"))
        _apply(wanted["models"][number], edit)
    try:
        is_the_same = _without_empty(tomllib.loads(text)) == _without_empty(wanted)
    except tomllib.TOMLDecodeError:
        is_the_same = False
    if not is_the_same:
        raise NotEditable
    return text


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without empty tables of quantisations: a dotted key that is taken out leaves no table."""
    models = [
        {key: value for key, value in model.items() if (key, value) != ("quantization", {})}
        for model in document["models"]
    ]
    return {**document, "models": models}


def _apply(model: dict[str, Any], edit: ModelEdit) -> None:
    if edit.max_seq_len is not None:
        model["device"] = {**copy.copy(model.get("device", {})), "max_seq_len": edit.max_seq_len}
    if edit.quant is not None:
        quantization = {**model.get("quantization", {}), "quant": edit.quant}
        if not edit.quant:
            del quantization["quant"]
        model["quantization"] = quantization


def _with_value(text: str, number: int, table: str, key: str, value: str) -> str:
    """Return the text with the value of a key in a table of a model, which is added where it is not there."""
    entries = positions(text)
    model: Location = ("models", number)
    if (entry := entries.get((*model, table, key))) is not None:
        return _spliced(text, entry.value, value)
    if (found := entries.get((*model, table))) is None:
        return _with_table(text, entries, number, table, f"{key} = {value}")
    start = found.value[0]
    match text[start]:
        case "[":
            return _with_line(text, _end_of_line(text, found.value[1]), f"{key} = {value}", _indent(text, start))
        case "{":
            is_empty = text[start + 1 :].lstrip().startswith("}")
            return _spliced(text, (start + 1, start + 1), f" {key} = {value}{'' if is_empty else ','}")
        case _:
            # A dotted key of the table stands in the line.
            line = text.rfind("\n", 0, found.key[0]) + 1
            return _with_line(text, line, f"{table}.{key} = {value}", _indent(text, found.key[0]))


def _with_table(text: str, entries: Mapping[Location, Entry], number: int, table: str, pair: str) -> str:
    """Return the text with a table of a model that it does not have yet, behind everything that the model has."""
    model = entries[("models", number)]
    if text[model.value[0]] == "{":
        start = model.value[0] + 1
        return _spliced(text, (start, start), f" {table} = {{ {pair} }},")
    end = max(entry.value[1] for location, entry in entries.items() if location[:2] == ("models", number))
    end = _end_of_line(text, end)
    ending = _line_ending(text)
    before = "" if not end or text[end - 1] == "\n" else ending
    return _spliced(text, (end, end), f"{before}{ending}[models.{table}]{ending}{pair}{ending}")


def _without(text: str, location: Location) -> str:
    """Return the text without a key. A comment behind it stays; a line that has nothing else goes."""
    entry = positions(text).get(location)
    if entry is None:
        return text
    start, end = entry.key[0], entry.value[1]
    line = text.rfind("\n", 0, start) + 1
    rest = text[end : _end_of_line(text, end)]
    if not text[line:start].strip() and not rest.strip():
        return _spliced(text, (line, _end_of_line(text, end)), "")
    if not text[line:start].strip() and rest.lstrip().startswith("#"):
        return _spliced(text, (start, end + len(rest) - len(rest.lstrip(" \t"))), "")
    if (comma := _COMMA_BEHIND.match(text, end)) is not None:
        return _spliced(text, (start, comma.end()), "")
    before = _COMMA_BEFORE.search(text[:start])
    return _spliced(text, (start if before is None else before.start(), end), "")


def _with_line(text: str, at: int, line: str, indent: str) -> str:
    before = "" if not at or text[at - 1] == "\n" else _line_ending(text)
    return _spliced(text, (at, at), f"{before}{indent}{line}{_line_ending(text)}")


def _spliced(text: str, span: tuple[int, int], value: str) -> str:
    return text[: span[0]] + value + text[span[1] :]


def _end_of_line(text: str, at: int) -> int:
    match = _LINE_REST.match(text, at)
    return len(text) if match is None else match.end()


def _indent(text: str, at: int) -> str:
    match = _SPACE.match(text, text.rfind("\n", 0, at) + 1)
    return "" if match is None else match[0]


def _line_ending(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
