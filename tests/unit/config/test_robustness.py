"""Nothing that a mapping or a file holds makes anything but a configuration or a ConfigError."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.config import load_config, validate_config
from modelyard.config.tables import TABLES
from modelyard.errors import ConfigError
from support.thorough import thorough

# How long one example takes depends on what else the machine does.
UNTIMED = settings(deadline=None)

KEYS = sorted({key for schema in TABLES.values() for key in schema.model_fields} | {"memory", "priority"})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(),
    st.sampled_from(["a", "default", "auto", "q4k", "4", "~", "./a", "serve", "text", "startup", "\0", "\udcff"]),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.binary(),
    st.frozensets(st.text()),
)


def tables(values):
    return st.dictionaries(st.sampled_from(KEYS) | st.text() | st.integers() | st.none(), values, max_size=8)


NESTED = st.recursive(SCALARS, lambda values: st.lists(values, max_size=4) | tables(values), max_leaves=20)
PLAUSIBLE = st.fixed_dictionaries(
    {"models": st.lists(tables(NESTED).map(lambda table: {"model_id": "a"} | table), max_size=3)},
    optional={
        "server": tables(NESTED),
        "runtime": tables(NESTED),
        "default_model_id": SCALARS,
        "memory": NESTED,
        "mcp": tables(NESTED),
    },
)


# Most of the time goes into drawing an example.
@thorough(100)
@given(tables(NESTED) | PLAUSIBLE)
def test_whatever_a_mapping_holds_it_is_a_configuration_or_a_config_error(mapping):
    problems = problems_of(mapping)
    assert not any("pydantic" in problem or "Input should" in problem for problem in problems)


def problems_of(mapping):
    try:
        validate_config(mapping)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return ()


@UNTIMED
@given(st.text() | st.binary())
def test_whatever_a_file_holds_it_is_a_configuration_or_a_config_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("config") / "models.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError):
        load_config(path)
