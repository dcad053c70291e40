"""The reference of all keys, written by the schema itself: ``python -m modelyard.config.reference`` prints it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from modelyard.config.tables import TABLES, header, keys
from modelyard.config.wording import expected

if TYPE_CHECKING:
    from collections.abc import Mapping


def render_reference() -> str:
    """A Markdown table of every key: its table, name, type, default and meaning."""
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
    """The default as TOML writes it, which for these types is as JSON writes it."""
    if "default" not in schema:
        return "required"
    return "unset" if schema["default"] is None else f"`{json.dumps(schema['default'])}`"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
