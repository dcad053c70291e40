"""References to environment variables in strings."""

import pytest

from modelyard.config.environment import expand, scalar_of

ENVIRONMENT = {"HOST": "::1", "PORT": "8080", "EMPTY": "", "SECRET": "hunter2hunter2"}


def expanded(text):
    expansion = expand({"a": [text]}, ENVIRONMENT)
    assert expansion.problems == ()
    return expansion.values["a"][0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${HOST}", "::1"),
        ("http://${HOST}:${PORT}/", "http://::1:8080/"),
        ("${NONE:-x y}", "x y"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("${HOST:-x}", "::1"),
        ("$HOST $ 5$", "$HOST $ 5$"),
        ("$${HOST} $$", "${HOST} $"),
    ],
)
def test_a_reference_is_replaced(text, value):
    assert expanded(text) == value


@pytest.mark.parametrize(
    ("text", "said"), [("${NONE}", "NONE is not set"), ("${a-b}", "begins no reference"), ("${", "$$")]
)
def test_a_reference_to_nothing_is_a_problem_of_its_value(text, said):
    expansion = expand({"a": {"b": text}}, ENVIRONMENT)
    (problem,) = expansion.problems
    assert said in str(problem)
    assert problem.location == ("a", "b")


def test_keys_are_not_expanded():
    assert expand({"${HOST}": 1}, ENVIRONMENT).values == {"${HOST}": 1}


def test_a_message_refers_to_the_variable_and_does_not_show_its_value():
    expansion = expand({"a": "x${SECRET}"}, ENVIRONMENT)
    assert expansion.redact("alias 'xhunter2hunter2' is taken") == "alias 'x${SECRET}' is taken"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("8080", "integer", 8080),
        ("1.5", "integer", "1.5"),
        ("1.5", "number", 1.5),
        ("TRUE", "boolean", True),
        ("yes", "boolean", "yes"),
        ("8080", "string", "8080"),
        ("9" * 400, "integer", "9" * 400),
    ],
)
def test_a_variable_holds_a_number_or_a_boolean_where_its_key_takes_one(text, kind, value):
    assert scalar_of(text, kind) == value
