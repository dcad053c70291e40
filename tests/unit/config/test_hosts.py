"""Names, origins and networks, as ``[server]`` takes and refuses them."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.errors import ConfigError


def problems(**server: Any) -> str:
    try:
        validate_config({"server": server, "models": [{"model_id": "m"}]})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["models.lan", "*", "*.example.org", "box", "my_service", "10.0.0.7", "::1", "[::1]"])
def test_names_of_the_server_are_taken(name: str) -> None:
    assert problems(allowed_hosts=[name]) == ""


@pytest.mark.parametrize("name", ["http://models.lan", "models.lan:8080", "a.*.b", "*.", "*lan", "a b", "-a", "a/b"])
def test_what_no_request_could_address_is_no_name(name: str) -> None:
    assert "allowed_hosts: item 1 must be a host name" in problems(allowed_hosts=[name])


@pytest.mark.parametrize("origin", ["https://chat.example", "http://localhost:3000", "tauri://localhost", "*", "null"])
def test_origins_are_taken(origin: str) -> None:
    assert problems(cors_origins=[origin]) == ""


@pytest.mark.parametrize("origin", ["https://chat.example/", "chat.example", "https://", "https://a@b", "https://a b"])
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    assert "cors_origins: item 1 must be an origin" in problems(cors_origins=[origin])


@pytest.mark.parametrize("network", ["127.0.0.1", "10.0.0.0/8", "10.1.2.3/8", "fd00::/8", "::1"])
def test_networks_of_proxies_are_taken(network: str) -> None:
    assert problems(trusted_proxies=[network]) == ""


@pytest.mark.parametrize("network", ["*", "proxy.lan", "10.0.0.0/33", "10.0.0"])
def test_what_is_no_network_is_trusted_by_nobody(network: str) -> None:
    assert "trusted_proxies: item 1 must be an IP address, or a network" in problems(trusted_proxies=[network])


def test_a_private_key_needs_its_certificate() -> None:
    assert "ssl_keyfile needs ssl_certfile" in problems(ssl_keyfile="server.key")
