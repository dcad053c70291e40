"""What the schema accepts, its defaults, and the properties of a model."""

import pickle

import pytest
from pydantic import BaseModel, ValidationError

from modelyard.config import (
    Config,
    FrequencyPenalty,
    MinP,
    Model,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Server,
    Temperature,
    TopK,
    TopP,
)


class Request(BaseModel):
    """A body of the HTTP API that reuses the sampling types."""

    temperature: Temperature = 1
    top_k: TopK = 0
    top_p: TopP = 1
    min_p: MinP = 0
    repetition_penalty: RepetitionPenalty = 1
    presence_penalty: PresencePenalty = 0
    frequency_penalty: FrequencyPenalty = 0
    seed: Seed = 0


def test_an_empty_configuration_has_every_default():
    config = Config()
    assert (config.command, config.default_model_id, config.models) == ("serve", None, ())
    assert (config.server.host, config.server.port, config.server.api_keys) == ("127.0.0.1", 1234, ())
    assert (config.runtime.max_seqs, config.runtime.prefix_cache_n) == (32, 16)


def test_a_model_that_is_only_named_has_every_default():
    model = Model(model_id="smol")
    assert (model.kind, model.load, model.pinned, model.chat_template) == ("auto", "startup", False, None)
    assert set(model.quantization.model_dump().values()) == {None}
    assert set(model.device.model_dump().values()) == {None, ()}
    assert set(model.sampling.model_dump().values()) == {None}


def test_a_model_is_listed_under_its_alias_and_answers_to_all_its_names():
    model = Model(model_id="org/gemma", alias="vision", aliases=("g", "vision", "org/gemma"))
    assert model.id == "vision"
    assert model.names == ("vision", "org/gemma", "g")


def test_a_model_without_an_alias_is_listed_under_its_model_id():
    model = Model(model_id="org/gemma", aliases=("g",))
    assert model.id == "org/gemma"
    assert model.names == ("org/gemma", "g")


def test_a_configuration_cannot_be_changed():
    config = Config(models=(Model(model_id="smol"),))
    with pytest.raises(ValidationError):
        config.server.port = 1
    assert hash(config) == hash(Config(models=(Model(model_id="smol"),)))


def test_a_configuration_survives_a_process_boundary():
    config = Config.model_validate({"models": [{"model_id": "./smol.gguf"}], "server": {"api_keys": ["sk-1"]}})
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert copy.models[0].source == config.models[0].source


def test_api_keys_are_hidden_wherever_a_configuration_is_printed():
    server = Server.model_validate({"api_keys": ["sk-very-secret"]})
    for text in (repr(server), str(server), repr(Config(server=server)), server.model_dump_json()):
        assert "sk-very-secret" not in text
    assert server.api_keys[0].get_secret_value() == "sk-very-secret"


def test_blanks_around_names_and_the_case_of_quantisations_do_not_matter():
    model = Model.model_validate({"model_id": " smol ", "quantization": {"isq": " Q4K ", "from_uqff": "Q4K-0.uqff"}})
    assert model.model_id == "smol"
    assert model.quantization.isq == "q4k"
    assert model.quantization.from_uqff == "Q4K-0.uqff"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0),
        ("temperature", 2.5),
        ("top_k", 0),
        ("top_p", 1),
        ("top_p", 0.01),
        ("min_p", 0),
        ("min_p", 1),
        ("repetition_penalty", 0.1),
        ("presence_penalty", -2),
        ("frequency_penalty", 2),
        ("seed", -1),
        ("seed", 2**63 - 1),
    ],
)
def test_sampling_accepts_its_whole_range(key, value):
    model = Model.model_validate({"model_id": "smol", "sampling": {key: value}})
    assert getattr(model.sampling, key) == value
    assert getattr(Request.model_validate({key: value}), key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -0.1),
        ("top_k", -1),
        ("top_k", 2**31),
        ("top_p", 0),
        ("top_p", 1.01),
        ("min_p", -0.01),
        ("min_p", 1.01),
        ("repetition_penalty", 0),
        ("presence_penalty", -2.1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", 2.1),
        ("seed", 2**63),
        *(
            (key, value)
            for key in (
                "temperature",
                "top_p",
                "min_p",
                "repetition_penalty",
                "presence_penalty",
                "frequency_penalty",
            )
            for value in (float("nan"), float("inf"), float("-inf"))
        ),
    ],
)
def test_a_request_is_refused_the_same_sampling_values_as_a_file(key, value):
    with pytest.raises(ValidationError):
        Model.model_validate({"model_id": "smol", "sampling": {key: value}})
    with pytest.raises(ValidationError):
        Request.model_validate({key: value})
