"""With api_keys configured, a request needs one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from pydantic import SecretStr

from conftest import two_models
from support.server import RunningServer, serving


@pytest.fixture(scope="module")
def server(weights: dict[str, Path]) -> Iterator[RunningServer]:
    config = two_models(weights)
    keys = (SecretStr("first-key"), SecretStr("second-key"))
    on_demand = tuple(model.model_copy(update={"load": "on-demand"}) for model in config.models)
    guarded = config.model_copy(
        update={"server": config.server.model_copy(update={"api_keys": keys}), "models": on_demand}
    )
    with serving(guarded) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first-key"},
        {"authorization": "bearer second-key"},
        {"x-api-key": "first-key"},
    ],
)
def test_a_configured_key_lets_in(server: RunningServer, headers: dict[str, str]) -> None:
    assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer first"},
        {"authorization": "first-key"},
        {"authorization": "Basic first-key"},
        {"x-api-key": ""},
        {"x-api-key": "ключ".encode()},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_everybody_else_is_refused_on_every_method(
    server: RunningServer, headers: dict[str, str | bytes], method: str
) -> None:
    answer = httpx.request(method, f"{server.url}/v1/models", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_health_is_open_to_all(server: RunningServer) -> None:
    assert httpx.get(f"{server.url}/health").text == "OK"


def test_the_official_client_sends_its_key_and_reads_the_refusal(server: RunningServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="first-key") as client:
        assert len(client.models.list().data) == 2
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong")
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
