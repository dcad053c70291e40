"""The reference of all keys, generated from the schema: ``python -m modelyard.config.reference`` prints it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from modelyard.config.tables import TABLES, header, keys
from modelyard.config.wording import expected

if TYPE_CHECKING:
    from collections.abc import Mapping


def render_reference() -> str:
    """Return a Markdown table of all keys: table, name, type, default and meaning."""
    rows = [("Table", "Key", "Type", "Default", "Meaning"), ("---",) * 5]
    rows += [
        (
            f"`{header(path)}`" if path else "top level",
            f"`{key}`",
            expected(schema),
            _default(schema),
            schema["description"],
        )
        for path in TABLES
        for key, schema in keys(path).items()
    ]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in row)} |\n" for row in rows)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _default(schema: Mapping[str, Any]) -> str:
    """Return the default in TOML, which for these types is the same as in JSON."""
    if "default" not in schema:
        return "required"
    return "unset" if schema["default"] is None else f"`{json.dumps(schema['default'])}`"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
