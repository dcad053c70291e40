"""The JSON schema for editors."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from modelyard.config.json_schema import SCHEMA_FILE, render_schema
from modelyard.config.tables import TABLES

EXAMPLES = Path(__file__).parents[3] / "examples"
MODEL = "[[models]]\nmodel_id = 'a'\n"


def errors(text):
    schema = json.loads(render_schema())
    jsonschema.Draft7Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(tomllib.loads(text))]


def test_the_shipped_schema_is_up_to_date():
    assert SCHEMA_FILE.read_text("utf-8") == render_schema()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_an_example_fits_the_schema_and_names_it(path):
    assert errors(path.read_text("utf-8")) == []
    first, _, _ = path.read_text("utf-8").partition("\n")
    assert (path.parent / first.removeprefix("#:schema ")).resolve() == SCHEMA_FILE


def test_every_key_is_described_and_keys_with_a_default_have_it():
    schema = json.loads(render_schema())
    names = {table.__name__ for table in TABLES.values()} - {"Config"}
    assert set(schema["definitions"]) == names
    for table in (schema, *schema["definitions"].values()):
        assert table["additionalProperties"] is False
        assert all(key["description"] for key in table["properties"].values())
    server = schema["definitions"]["Server"]["properties"]
    assert server["port"]["default"] == 1234
    assert "wording" not in render_schema()


@pytest.mark.parametrize(
    "line",
    [
        "idle_unload_seconds = '10m'",
        "idle_unload_seconds = 5",
        "device = { device_layers = ['0:3'], max_seq_len = '${CTX:-8192}' }",
        "device = { max_seq_len = '8k' }",
        "pinned = '${PIN}'",
        "kind = '${KIND:-text}'",
        "aliases = ['a']",
    ],
)
def test_what_the_configuration_takes_the_schema_takes(line):
    memory = "{ budget = '50%', kv_keep_bytes = '2GiB', devices = { CUDA0 = '20GiB', 1 = '80%', b = 0.5 } }"
    assert errors(f"memory = {memory}\n{MODEL}{line}") == []


@pytest.mark.parametrize(
    "line",
    [
        "idle_unload_seconds = '10'",
        "contxt = 3",
        "kind = 'txt'",
        "pinned = 1",
        "device = { max_seq_len = 0 }",
        "device = { max_seq_len = '8kb' }",
    ],
)
def test_what_the_configuration_refuses_the_schema_refuses(line):
    assert errors(f"{MODEL}{line}")


@pytest.mark.parametrize("budget", ["'lots'", "1.5", "-3", "5000", "true"])
def test_what_is_no_budget_of_a_device_the_schema_refuses(budget):
    assert errors(f"memory = {{ devices = {{ CUDA0 = {budget} }} }}\n{MODEL}")
