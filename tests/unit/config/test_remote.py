"""``remote`` in [[models]]: where other servers have a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.config import Config, validate_config
from modelyard.config.diff import diff
from modelyard.errors import ConfigError

ADDRESS = "http://host:1234/v1"


def read(*models: dict[str, Any]) -> Config:
    return validate_config({"models": list(models)}, source="test", base=Path("/nowhere"))


def test_one_address_or_several() -> None:
    config = read({"model_id": "big", "remote": f"{ADDRESS}/"}, {"model_id": "b", "remote": [ADDRESS, "https://x.y"]})
    big, other = config.models
    assert (big.remote, big.id, big.is_remote, big.names) == ((ADDRESS,), "big", True, ("big",))
    assert other.remote == (ADDRESS, "https://x.y")
    assert big.source == ADDRESS


@pytest.mark.parametrize(
    "address",
    ["host:1234", "ftp://host", "http://", "http://h:99999", "http://h/v1?x=1", "http://h/#a", "http://a b", 5],
)
def test_other_texts_are_refused(address: Any) -> None:
    with pytest.raises(ConfigError, match="remote must be the base URL of a server"):
        read({"model_id": "big", "remote": address})


def test_addresses_are_different_ones() -> None:
    with pytest.raises(ConfigError, match="a list of different ones"):
        read({"model_id": "big", "remote": [ADDRESS, f"{ADDRESS}/"]})
    with pytest.raises(ConfigError, match="remote must be"):
        read({"model_id": "big", "remote": []})


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="api_key_env") as refused:
        read({"model_id": "big", "remote": "http://user:hunter2@host/v1"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "keys", [{"device": {"cpu": True}}, {"pinned": True}, {"quantization": {"quant": "4"}}, {"dtype": "f16"}]
)
def test_keys_of_models_of_this_machine_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="has no effect on a model with 'remote'"):
        read({"model_id": "big", "remote": ADDRESS, **keys})


@pytest.mark.parametrize("keys", [{"api_key_env": "X"}, {"remote_model": "m"}, {"remote_timeout_seconds": 5}])
def test_keys_of_remote_models_need_an_address(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="needs 'remote'"):
        read({"model_id": "/models/m.gguf", **keys})


def test_a_remote_model_drafts_for_none() -> None:
    with pytest.raises(ConfigError, match="cannot draft"):
        read({"model_id": "big", "remote": ADDRESS}, {"model_id": "/m.gguf", "draft": "big"})


def test_another_address_needs_another_engine() -> None:
    old, new = (read({"model_id": "big", "remote": f"http://{host}/v1"}) for host in ("a", "b"))
    assert "remote" in diff(old, new).changed["big"]
    assert not diff(old, old).changed
