"""Keys of other servers: named, with what to do."""

import pytest

from modelyard.config import validate_config
from modelyard.config.foreign import FOREIGN
from modelyard.config.tables import TABLES
from modelyard.errors import ConfigError


@pytest.mark.parametrize("path", FOREIGN)
def test_a_foreign_key_says_what_to_do(path):
    *tables, key = path
    given: dict = {key: "x"}
    for table in reversed(tables):
        given = {table: given}
    model = {"model_id": "org/a", **given.pop("models", {})}
    with pytest.raises(ConfigError) as refused:
        validate_config({**given, "models": [model]})
    (problem,) = refused.value.problems
    assert str(problem).endswith(f"unknown key '{key}'. {FOREIGN[path]}")


def test_no_key_is_both_foreign_and_known():
    known = {(*path, key) for path, table in TABLES.items() for key in table.model_fields}
    assert not known & set(FOREIGN)
