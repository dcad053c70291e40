"""Turns the errors of pydantic into problems of the TOML file."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from modelyard.config.environment import scalar_of
from modelyard.config.foreign import FOREIGN, OTHER_TOOLS, other_tools_key
from modelyard.config.sizes import size_hint
from modelyard.config.tables import LISTS, TABLES, header, keys, label, place
from modelyard.config.wording import (
    choices,
    did_you_mean,
    expected,
    is_secret,
    is_text,
    items_of,
    shown,
    type_of,
    values_of,
)
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from modelyard.config.tables import TablePath
    from modelyard.errors.configuration import Location


MAX_ADVISED: Final = 100
"""Unknown keys for which similar ones are looked for: that takes milliseconds, and few problems are shown."""


def schema_problems(
    error: ValidationError, given: Mapping[str, object], written: Mapping[Location, str]
) -> list[ConfigProblem]:
    """Return one problem for each value that does not fit the schema, in the order of the schema.

    Args:
        error: as pydantic raised it.
        given: the mapping that was refused; the problems take the names of models from it.
        written: texts of the file in which environment variables were replaced, whose values are not shown.
    """
    return [
        _problem(details, given, written.get(details["loc"], details["input"]), is_advised=number < MAX_ADVISED)
        for number, details in enumerate(error.errors(include_url=False, include_context=False))
    ]


def _problem(details: ErrorDetails, given: Mapping[str, object], value: object, *, is_advised: bool) -> ConfigProblem:
    location = details["loc"]
    path, number, rest = place(location)
    model_id = _name_of(given, path, number)
    if not rest:
        return _not_a_table(path, number, model_id, location)
    is_unknown = details["type"] in ("extra_forbidden", "invalid_key")
    if is_unknown:
        message, hint = _unknown(path, str(rest[0]), value), _advice(path, str(rest[0]), value) if is_advised else ""
    else:
        message, hint = _about_value(path, rest, details, value)
    return ConfigProblem(message, hint, table=label(path, number, model_id), location=location, is_key=is_unknown)


def _name_of(given: Mapping[str, object], path: TablePath, number: int | None) -> object:
    """Return the id of a model, or the name of an MCP server; None for other tables."""
    match path:
        case ("models", *_):
            tables, key = given.get("models"), "model_id"
        case ("mcp", "servers"):
            mcp = given.get("mcp")
            tables, key = mcp.get("servers") if isinstance(mcp, dict) else None, "name"
        case _:
            return None
    if number is None or not isinstance(tables, list | tuple):
        return None
    table = tables[number - 1]
    return table.get(key) if isinstance(table, dict) else None


def _not_a_table(path: TablePath, number: int | None, model_id: object, location: Location) -> ConfigProblem:
    if path in LISTS:
        if number is not None:
            return ConfigProblem(f"{label(path, number)} must be a table.", location=location)
        message = f"{'.'.join(path)} must be a list of tables: open each with {header(path)}, in double brackets."
        return ConfigProblem(message, location=location)
    where = label(path[:-1], number, model_id) if path[:-1] else ""
    return ConfigProblem(f"{path[-1]} must be one table, written {header(path)}.", table=where, location=location)


def _about_value(path: TablePath, rest: Location, details: ErrorDetails, value: object) -> tuple[str, str]:
    key = str(rest[0])
    if details["type"] == "missing":
        return f"{key} is missing.", ""
    schema = keys(path)[key]
    is_hidden = is_secret(schema)
    if len(rest) == 1:
        return _instead(f"{key} must be {expected(schema)}", schema, value, secret=is_hidden)
    if (values := values_of(schema)) is not None:
        return _instead(f"{key}: {shown(rest[1])} must be {expected(values)}", values, value, secret=False)
    items = items_of(schema)
    return _instead(f"{key}: item {int(rest[1]) + 1} must be {expected(items)}", items, value, secret=is_hidden)


def _instead(what: str, schema: Mapping[str, Any], value: object, *, secret: bool) -> tuple[str, str]:
    """Return the sentence that begins with what is expected, with the value found; and a suggestion if there is one."""
    if secret:
        return f"{what}.", ""
    if is_text(schema) and isinstance(value, int | float) and not isinstance(value, bool):
        return f'{what}: write "{shown(value)}", not {shown(value)}.', ""
    if not isinstance(value, str):
        return f"{what}, not {shown(value)}.", ""
    if not isinstance(scalar_of(value, type_of(schema)), str):
        return f"{what}, not {shown(value)}.", f"Write {value.strip()}, without quotes."
    return f"{what}, not {shown(value)}.", did_you_mean(value, choices(schema)) or size_hint(value, expected(schema))


def _unknown(path: TablePath, key: str, value: object) -> str:
    return f"unknown table {header((*path, key))}." if isinstance(value, dict) else f"unknown key {shown(key)}."


def _advice(path: TablePath, key: str, value: object) -> str:
    """Return what to do about a key that the table does not have."""
    if (*path, key) in FOREIGN:
        return FOREIGN[(*path, key)]
    home = next((home for home, table in TABLES.items() if key in table.model_fields), None)
    if home is not None and (not isinstance(value, dict) or (*home, key) in TABLES):
        return _belongs(home, key)
    known = list(TABLES[path].model_fields)
    is_scalar = not isinstance(value, dict | list)
    if is_scalar and (other := other_tools_key(key)) is not None:
        return _renamed(path, other)
    if near := did_you_mean(key, known):
        return near
    elsewhere = {name: home for home, table in TABLES.items() for name in table.model_fields}
    if closest := get_close_matches(key, list(elsewhere), n=1, cutoff=0.75):
        return f"Did you mean {shown(closest[0])}? {_belongs(elsewhere[closest[0]], closest[0])}"
    if is_scalar and (closest := get_close_matches(key, list(OTHER_TOOLS), n=1, cutoff=0.8)):
        return _renamed(path, OTHER_TOOLS[closest[0]])
    return f"Known here: {', '.join(known)}."


def _renamed(path: TablePath, key: tuple[str, ...] | str) -> str:
    """Return what to write in place of another tool's key."""
    if isinstance(key, str):
        return key
    *table, name = key
    return f"Write {name}." if tuple(table) == path else f"Write {name} {_where(tuple(table))}."


def _belongs(home: TablePath, key: str) -> str:
    return f"Write {header((*home, key))}." if (*home, key) in TABLES else f"It belongs {_where(home)}."


def _where(table: TablePath) -> str:
    return f"in {header(table)}" if table else "at the top of the file, above the first [table]"
