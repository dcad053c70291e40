"""The reference that the schema writes."""

import subprocess
import sys

from modelyard.config.reference import render_reference
from modelyard.config.tables import TABLES


def rows():
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in render_reference().splitlines()]


def test_every_key_has_a_row_with_a_meaning():
    keys = [key for path, schema in TABLES.items() for key in schema.model_fields if (*path, key) not in TABLES]
    assert [row[1] for row in rows()[2:]] == [f"`{key}`" for key in keys]
    assert all(len(row) == 5 and all(row) for row in rows())


def test_a_row_says_table_key_type_default_and_meaning():
    assert rows()[0] == ["Table", "Key", "Type", "Default", "Meaning"]
    assert [
        "`[server]`",
        "`port`",
        "a whole number from 0 to 65535",
        "`1234`",
        "TCP port. `0` takes any free port.",
    ] in rows()
    defaults = {row[1]: row[3] for row in rows()}
    assert defaults["`model_id`"] == "required"
    assert defaults["`alias`"] == "unset"
    assert defaults["`aliases`"] == "`[]`"
    assert defaults["`pinned`"] == "`false`"
    assert defaults["`load`"] == '`"startup"`'


def test_the_module_prints_the_reference():
    command = [sys.executable, "-W", "error", "-m", "modelyard.config.reference"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout == render_reference()
