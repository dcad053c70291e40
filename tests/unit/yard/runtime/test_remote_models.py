"""What a yard knows of models that other servers have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.errors import ConfigError
from modelyard.yard.runtime.remote_models import RemoteModels
from modelyard.yard.yard import Yard


def named(**keys: Any) -> Config:
    model = {"model_id": "big", "remote": "http://127.0.0.1:9/v1", **keys}
    return validate_config({"models": [model]}, source="test", base=Path("/"))


def test_the_settings_are_those_of_its_table() -> None:
    (model,) = named(remote_model="theirs", api_key_env="KEY", remote_timeout_seconds=9, sampling={"top_k": 3}).models
    settings = RemoteModels({"KEY": " sk-1 "}).settings(model)
    assert (settings.name, settings.model, settings.api_key, settings.timeout_s) == ("big", "theirs", "sk-1", 9)
    assert settings.sampling.top_k == 3
    assert settings.sampling.temperature is None
    assert RemoteModels({}).settings(named().models[0]).model == "big"


def test_a_key_that_is_missing_or_cannot_be_sent_is_a_problem() -> None:
    models = named(api_key_env="KEY").models
    assert "KEY (api_key_env) is not set" in str(RemoteModels({}).problems(models)[0])
    (odd,) = RemoteModels({"KEY": "schlüssel"}).problems(models)
    assert "schlüssel" not in str(odd)
    assert RemoteModels({"KEY": "sk-1"}).problems(models) == []
    assert RemoteModels({}).problems(named().models) == []


async def test_a_server_does_not_start_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        await Yard(named(api_key_env="NO_SUCH_KEY")).start()


async def test_a_server_starts_while_the_other_one_is_down() -> None:
    yard = Yard(named())
    await yard.start()
    try:
        (model,) = yard.models()
        assert (model.status, model.is_remote, model.predicted_bytes) == ("loaded", True, None)
        assert yard.monitor.metrics().used_bytes == 0
    finally:
        await yard.close()
