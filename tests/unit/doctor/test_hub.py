"""Whether the hub is there, asked from machines with and without a network."""

from __future__ import annotations

import socket
import threading

import pytest

from modelyard.doctor.hub import check_connectivity
from support.hub import serving_hub


def at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_a_hub_that_answers_is_reachable(monkeypatch: pytest.MonkeyPatch):
    with serving_hub() as hub:
        at(monkeypatch, hub.url)
        facts = check_connectivity(False)
        assert (facts.endpoint, facts.state, facts.detail, facts.has_token) == (hub.url, "reachable", "", False)
        # No token is sent.
        assert check_connectivity("hf_secret").has_token
        assert hub.authorizations == {None}


def test_a_hub_where_nobody_listens_is_unreachable(monkeypatch: pytest.MonkeyPatch):
    at(monkeypatch, "http://127.0.0.1:9")
    facts = check_connectivity(False)
    assert facts.state == "unreachable"
    assert facts.detail


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert check_connectivity(False, timeout_s=0.05).state == "unreachable"


def test_a_name_that_cannot_be_looked_up_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    at(monkeypatch, "http://hub.invalid")
    never = threading.Event()
    monkeypatch.setattr("modelyard.doctor.hub._request", lambda *_: str(never.wait(10)))
    assert check_connectivity(False, timeout_s=0.01).detail == "no answer within 0 s"
    never.set()


def test_offline_nobody_is_asked(monkeypatch: pytest.MonkeyPatch):
    with serving_hub() as hub:
        at(monkeypatch, hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert check_connectivity(False).state == "offline"
        assert hub.requests == []


def test_the_token_of_the_login_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert check_connectivity(None).has_token
    assert not check_connectivity(False).has_token
