"""Which model a name means."""

import pytest

from modelyard.errors import ModelNotFound, ModelRequired
from modelyard.yard.requests.router import Router

NAMES = {"org/smol": ["org/smol", "smol"], "org/gemma": ["org/gemma", "gemma", "google/gemma"]}


@pytest.fixture
def router():
    return Router(NAMES, default="org/gemma")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("org/smol", "org/smol"),
        ("smol", "org/smol"),
        ("google/gemma", "org/gemma"),
        ("default", "org/gemma"),
        (None, "org/gemma"),
    ],
)
def test_an_id_an_alias_and_the_default_find_their_model(router, name, model):
    assert router.route(name) == model


def test_an_id_is_a_name_even_where_it_is_not_listed_as_one():
    assert Router({"org/smol": []}, None).route("org/smol") == "org/smol"


@pytest.mark.parametrize("name", ["SMOL", "smol ", "org", "", "org/smol:latest", "Default"])
def test_a_name_that_is_not_exactly_known_is_refused_and_never_served_by_another_model(router, name):
    with pytest.raises(ModelNotFound) as refused:
        router.route(name)
    assert refused.value.model == name
    assert refused.value.known == ("org/smol", "org/gemma")


@pytest.mark.parametrize("name", [None, "default"])
def test_without_a_default_a_request_must_name_its_model(name):
    with pytest.raises(ModelRequired) as refused:
        Router(NAMES, None).route(name)
    assert refused.value.known == ("org/smol", "org/gemma")


def test_what_several_models_have_in_common_means_the_first_or_the_one_that_is_listed_under_it():
    assert Router({"x": ["x", "org/smol"], "y": ["y", "org/smol"]}, None).route("org/smol") == "x"
    assert Router({"x": ["x", "org/smol"], "org/smol": ["org/smol"]}, None).route("org/smol") == "org/smol"
