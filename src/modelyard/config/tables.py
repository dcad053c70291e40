"""The tables of the schema, and how they are written in TOML."""

from __future__ import annotations

import re
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, get_args

from modelyard.config.base import Table
from modelyard.config.schema import Config
from modelyard.config.wording import shown, type_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelyard.errors.configuration import Location

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

TablePath = tuple[str, ...]
"""The names that lead to a table: ``()`` is the top level, ``("models", "device")`` is ``[models.device]``."""


def _walk(schema: type[Table], path: TablePath) -> Iterator[tuple[TablePath, type[Table]]]:
    yield path, schema
    for key, field in schema.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Table):
                yield from _walk(kind, (*path, key))


TABLES: Final[Mapping[TablePath, type[Table]]] = MappingProxyType(dict(_walk(Config, ())))


LISTS: Final = frozenset({("models",), ("models", "adapters"), ("server", "keys"), ("mcp", "servers")})
"""The tables of which a file may hold several."""


def place(location: Location) -> tuple[TablePath, int | None, Location]:
    """Split a location into its table, the number of its model or key, and the rest: a key and perhaps an item."""
    path: TablePath = ()
    number, rest = None, location
    while rest and (inner := (*path, str(rest[0]))) in TABLES:
        path, rest = inner, rest[1:]
        if path in LISTS and rest:
            number, rest = int(rest[0]) + 1, rest[1:]
    return path, number, rest


def dotted(location: Location, given: Mapping[str, object]) -> str:
    """Return the names that lead to a value, with the id of its model: ``models.qwen.device.cpu``.

    Args:
        location: of the value.
        given: the tables that it is in, of which models are named; a model without a name has its number, from 1.
    """
    names: list[str] = []
    value: object = given
    for part in location:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list | tuple) and part < len(value) else None
            fields = value if isinstance(value, dict) else {}
            name = next((fields[key] for key in ("alias", "model_id", "name") if isinstance(fields.get(key), str)), "")
            names.append(_quoted(name) if name else str(part + 1))
        else:
            value = value.get(part) if isinstance(value, dict) else None
            names.append(_quoted(str(part)))
    return ".".join(names)


def _quoted(name: str) -> str:
    """Return a name as TOML writes it in a dotted key."""
    return name if _BARE.fullmatch(name) else f"'{shown(name)[1:-1]}'"


def header(path: TablePath) -> str:
    """Return the line that opens the table in TOML; "" for the top level."""
    if not path:
        return ""
    name = ".".join(path)
    return f"[[{name}]]" if path in LISTS else f"[{name}]"


def label(path: TablePath, number: int | None = None, model_id: object = None) -> str:
    """Return how a message names the table, for example ``[models.device] of model 2 ('google/gemma')``.

    Args:
        path: of the table.
        number: of the model, or key, in the file, counted from 1.
        model_id: of the model; left out where it is no text.
    """
    if number is None:
        return header(path)
    which = f"{number} ({shown(model_id)})" if isinstance(model_id, str) and model_id else f"{number}"
    return f"{header(path)} {which}" if path in LISTS else f"{header(path)} of model {which}"


@cache  # a pure function of the schema that takes up to 16 ms, asked once for each problem
def keys(path: TablePath) -> Mapping[str, Mapping[str, Any]]:
    """Return the keys of the table that are not tables themselves, each with its JSON schema."""
    properties = TABLES[path].model_json_schema()["properties"]
    return MappingProxyType({key: schema for key, schema in properties.items() if (*path, key) not in TABLES})


def kind_of(location: Location) -> object:
    """Return the JSON type of the key at a location; None where it has several, or there is no such key."""
    path, _, rest = place(location)
    return type_of(keys(path).get(str(rest[0]), {})) if len(rest) == 1 else None
