"""Which model a name means."""

import pytest

from modelyard.config import Adapter
from modelyard.errors import ModelNotFound, ModelRequired
from modelyard.protocol.adapters import AdapterUse
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


@pytest.fixture
def adapting():
    adapters = {
        "org/smol": [{"name": "sql", "scale": 0.5}, {"name": "poet", "alias": "smol-poet"}, {"name": "both"}],
        "org/gemma": [{"name": "both"}],
    }
    made = {model: [Adapter(path="/x.gguf", **each) for each in its] for model, its in adapters.items()}
    return Router(NAMES, default="org/gemma", adapters=made)


@pytest.mark.parametrize(
    ("name", "model", "uses"),
    [
        ("org/smol", "org/smol", ()),
        ("org/smol::sql", "org/smol", (("sql", 0.5),)),
        ("smol::sql", "org/smol", (("sql", 0.5),)),
        ("smol::poet+sql", "org/smol", (("poet", 1.0), ("sql", 0.5))),
        ("default::both", "org/gemma", (("both", 1.0),)),
        ("smol::both", "org/smol", (("both", 1.0),)),
        ("sql", "org/smol", (("sql", 0.5),)),
        ("smol-poet", "org/smol", (("poet", 1.0),)),
    ],
)
def test_an_id_with_adapters_an_alias_and_a_name_that_is_unique_find_the_model_and_its_adapters(
    adapting, name, model, uses
):
    assert adapting.route(name) == model
    assert adapting.adapters_of(name) == tuple(AdapterUse(*use) for use in uses)


@pytest.mark.parametrize("name", ["both", "smol::", "smol::sql+", "smol::sql+x", "gemma::sql", "x::sql", "::sql"])
def test_an_adapter_that_the_model_does_not_have_is_no_model(adapting, name):
    with pytest.raises(ModelNotFound) as refused:
        adapting.route(name)
    assert "org/smol::sql" in refused.value.known
