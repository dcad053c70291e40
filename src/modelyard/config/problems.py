"""Turns the errors of pydantic into sentences about the TOML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.config.foreign import FOREIGN
from modelyard.config.tables import LISTS, TABLES, header, keys, label
from modelyard.config.wording import choices, did_you_mean, expected, is_secret, is_text, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from modelyard.config.tables import TablePath


def schema_problems(error: ValidationError, given: Mapping[str, object]) -> list[str]:
    """Return one sentence for each value that does not fit the schema, in the order of the schema.

    Args:
        error: as pydantic raised it.
        given: the mapping that was refused; the sentences take the names of models from it.
    """
    return [_sentence(details, given) for details in error.errors(include_url=False, include_context=False)]


def _sentence(details: ErrorDetails, given: Mapping[str, object]) -> str:
    path, number, rest = _place(details["loc"])
    model_id = _model_id(given, number) if path[:1] == ("models",) else None
    where = label(path, number, model_id)
    if not rest:
        return _not_a_table(path, number, model_id)
    return (f"{where}: " if where else "") + _about_key(path, rest, details)


def _place(loc: tuple[int | str, ...]) -> tuple[TablePath, int | None, tuple[int | str, ...]]:
    """Split a location into its table, the number of its model or key, and the rest: a key and perhaps an item."""
    path: TablePath = ()
    number, rest = None, loc
    while rest and (inner := (*path, str(rest[0]))) in TABLES:
        path, rest = inner, rest[1:]
        if path in LISTS and rest:
            number, rest = int(rest[0]) + 1, rest[1:]
    return path, number, rest


def _model_id(given: Mapping[str, object], number: int | None) -> object:
    models = given.get("models")
    if number is None or not isinstance(models, list | tuple):
        return None
    model = models[number - 1]
    return model.get("model_id") if isinstance(model, dict) else None


def _not_a_table(path: TablePath, number: int | None, model_id: object) -> str:
    if path in LISTS:
        if number is not None:
            return f"{label(path, number)} must be a table."
        return f"{'.'.join(path)} must be a list of tables: open each with {header(path)}, in double brackets."
    where = f"{label(path[:-1], number, model_id)}: " if path[:-1] else ""
    return f"{where}{path[-1]} must be one table, written {header(path)}."


def _about_key(path: TablePath, rest: tuple[int | str, ...], details: ErrorDetails) -> str:
    key, value = str(rest[0]), details["input"]
    if details["type"] in ("extra_forbidden", "invalid_key"):
        return _unknown(path, key, value)
    if details["type"] == "missing":
        return f"{key} is missing."
    schema = keys(path)[key]
    if len(rest) == 1:
        return f"{key} must be {expected(schema)}{_instead(schema, value, secret=is_secret(schema))}"
    return (
        f"{key}: item {int(rest[1]) + 1} must be {expected(schema['items'])}"
        f"{_instead(schema['items'], value, secret=is_secret(schema))}"
    )


def _instead(schema: Mapping[str, Any], value: object, *, secret: bool) -> str:
    """Return the end of a sentence that says what is expected: the value found, and a suggestion if there is one."""
    if secret:
        return "."
    if is_text(schema) and isinstance(value, int | float) and not isinstance(value, bool):
        return f': write "{shown(value)}", not {shown(value)}.'
    near = did_you_mean(value, choices(schema)) if isinstance(value, str) else ""
    return f", not {shown(value)}.{near}"


def _unknown(path: TablePath, key: str, value: object) -> str:
    schema = TABLES[path]
    is_table = isinstance(value, dict)
    name = header((*path, key)) if is_table else key
    known = list(schema.model_fields)
    problem = f"unknown table {name}." if is_table else f"unknown key {shown(key)}."
    if (*path, key) in FOREIGN:
        return f"{problem} {FOREIGN[(*path, key)]}"
    home = next((home for home, table in TABLES.items() if key in table.model_fields), None)
    if home is not None:
        return f"{problem} {_belongs(home, key)}"
    return problem + (did_you_mean(key, known) or f" Known here: {', '.join(known)}.")


def _belongs(home: TablePath, key: str) -> str:
    if (*home, key) in TABLES:
        return f"Write {header((*home, key))}."
    return f"It belongs in {header(home)}." if home else "It belongs at the top of the file, above the first [table]."
