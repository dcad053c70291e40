"""Unsafe settings are reported, and safe ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.config import read_keys, validate_config
from modelyard.doctor.settings import FileMode, unsafe_settings

GOOD_KEY = "sk-3f9c5f2ab7f34a6c8d1e"
MODEL = {"model_id": "/models/m.gguf", "alias": "m"}


def names(server: dict[str, Any], *modes: int, **tables: Any) -> list[str]:
    config = validate_config({"server": server, "models": [MODEL], **tables}, source="test")
    files = [FileMode(Path("/etc/models.toml"), mode) for mode in modes]
    return [unsafe.name for unsafe in unsafe_settings(config, read_keys(config, {}), files)]


def test_the_defaults_are_safe() -> None:
    assert names({}) == []


def test_a_shared_server_with_tls_and_keys_is_safe() -> None:
    tls = {"ssl_certfile": "/etc/server.pem", "ssl_keyfile": "/etc/server.key"}
    assert names({"host": "0.0.0.0", "api_keys": [GOOD_KEY], **tls}, 0o600) == []
    assert names({"host": "0.0.0.0", "api_keys": [GOOD_KEY], "trusted_proxies": ["10.0.0.7"]}) == []


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ({"host": "0.0.0.0"}, "open_to_network"),
        ({"host": "192.168.1.7", "api_keys": [GOOD_KEY]}, "keys_in_the_clear"),
        ({"cors_origins": ["*"]}, "any_page"),
        ({"allowed_hosts": ["*"]}, "any_host"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "any_proxy"),
        ({"image_folders": ["/"]}, "wide_folder"),
        ({"audio_folders": [str(Path.home())]}, "wide_folder"),
        ({"allow_private_image_urls": True, "keys": [{"key": GOOD_KEY}]}, "private_urls"),
        ({"share_prefixes": "all", "api_keys": [GOOD_KEY, GOOD_KEY + "2"]}, "shared_prefixes"),
        ({"api_keys": ["secret"]}, "short_key"),
        ({"keys": [{"key": "secret"}]}, "short_key"),
    ],
)
def test_what_is_unsafe_has_a_name(server: dict[str, Any], name: str) -> None:
    assert names(server) == [name]


def test_a_model_that_is_neither_tried_nor_isolated_is_named() -> None:
    assert names({}, runtime={"trial": False, "isolation": "thread"}) == ["untried_on_a_thread"]


def test_a_file_with_secrets_is_for_its_owner_alone() -> None:
    assert names({}, 0o644) == names({}, 0o640) == ["readable_secret"]
    assert names({}, 0o600) == []


def test_a_digest_is_no_short_key() -> None:
    assert names({"api_keys": ["sha256:" + "0" * 64]}) == []
