"""``[discover]``, and models that are put beside the configured ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, Model, default_model, validate_config
from modelyard.config.discover import STORES
from modelyard.config.layers import free_name, with_models, without_models
from modelyard.errors import ConfigError


def config(*models: str, **more: Any) -> Config:
    return validate_config({"models": [{"model_id": model} for model in models], **more}, base=Path("/base"))


def found(model_id: str, alias: str) -> Model:
    model = Model.model_validate({"model_id": model_id, "alias": alias})
    model.mark_origin("discovered")
    return model


def test_all_stands_for_every_store_and_folders_start_at_the_file() -> None:
    discover = config(discover={"stores": ["ollama", "all"], "folders": ["models", "/abs"]}).discover
    assert discover.named_stores == STORES
    assert discover.folders == (Path("/base/models"), Path("/abs"))
    assert discover.is_on


def test_a_server_that_looks_for_models_needs_none_of_its_own_and_may_name_one_that_will_be_found() -> None:
    assert config(discover={"stores": ["all"]}, default_model_id="llama3.2").models == ()
    with pytest.raises(ConfigError, match="No models"):
        config()
    with pytest.raises(ConfigError, match="No models"):
        config(discover={"stores": ["all"]}, command="run")


def test_an_unknown_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="huggingface"):
        config(discover={"stores": ["steam"]})


def test_models_that_were_found_stand_behind_the_others_and_change_no_default() -> None:
    both = with_models(config("org/a"), [found("/x.gguf", "x"), found("/y.gguf", "org/a")])
    assert [model.id for model in both.models] == ["org/a", "x"]
    assert default_model(both) == "org/a"
    assert without_models(both, "discovered").models == config("org/a").models


def test_a_default_that_was_found_later_is_the_default() -> None:
    waiting = config(discover={"stores": ["all"]}, default_model_id="x")
    assert default_model(waiting) is None
    assert default_model(with_models(waiting, [found("/x.gguf", "x"), found("/y.gguf", "y")])) == "x"


def test_a_free_name_is_the_first_that_nobody_has_else_it_has_a_number() -> None:
    assert free_name(("a", "b/a"), {"a"}) == "b/a"
    assert free_name(("a", "b/a"), {"a", "b/a", "a-2"}) == "a-3"
