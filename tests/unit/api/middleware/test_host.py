"""Which names a server answers to, by where it listens and whether it has keys."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.api.middleware.host import CheckHost, HostNames, host_names
from modelyard.api.request_context import RequestContext
from modelyard.system.own_names import own_names


async def is_let_in(names: HostNames, *hosts: str) -> bool:
    """Whether a request with those Host headers comes through; else it is told of the setting."""
    came, sent = [], []

    async def inside(*_: Any) -> None:
        came.append(True)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host.encode()) for host in hosts]}
    RequestContext(scope)
    await CheckHost(inside, names)(scope, inside, send)  # type: ignore[arg-type]
    if not came:
        assert sent[0]["status"] == 403
        assert b"host_not_allowed" in sent[1]["body"]
        assert b"allowed_hosts" in sent[1]["body"]
    return bool(came)


def loopback(*allowed: str, has_keys: bool = False) -> HostNames:
    names = host_names("127.0.0.1", allowed, (), is_mounted=False, has_keys=has_keys)
    assert names is not None
    return names


def reached(*allowed: str) -> HostNames:
    names = host_names("0.0.0.0", allowed, ("box", "box.local", "box.corp.example"), is_mounted=False, has_keys=False)
    assert names is not None
    return names


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "localhost.", "127.0.0.1:80", "127.8.8.8", "[::1]:80"])
async def test_the_machine_itself_is_always_answered_to(host: str) -> None:
    for names in (loopback(), loopback("models.lan"), loopback(has_keys=True), reached(), reached("models.lan")):
        assert await is_let_in(names, host)


async def test_a_request_without_a_host_is_from_no_browser() -> None:
    assert await is_let_in(loopback())


FOREIGN = [
    *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil", "box.evil.example", "evil.box"),
    *("", " ", "a:b:c", "localhost:x", "user@localhost", "localhost/evil", "localhost?evil", "localhost#", "[::1"),
    *("localhost evil.example", "localhost,evil.example", "127.1", "2130706433", "0x7f.0.0.1", "[::1%25eth0]", "%6c"),
    *("localhost:1234:1234", "localh\xf6st", "::1", "*", "-"),
]


@pytest.mark.parametrize("host", FOREIGN)
async def test_no_other_name_is(host: str) -> None:
    for names in (loopback(), reached(), loopback("models.lan"), reached("*.models.lan"), loopback(has_keys=True)):
        assert not await is_let_in(names, host)


async def test_of_several_hosts_each_must_be_one_of_the_server() -> None:
    assert await is_let_in(loopback(), "localhost", "127.0.0.1:1234")
    assert not await is_let_in(loopback(), "localhost", "evil.example")
    assert not await is_let_in(loopback(), "evil.example", "localhost")


@pytest.mark.parametrize("host", ["192.0.2.7:1234", "[2001:db8::1]:1234", "box:1234", "BOX.local", "box.corp.example."])
async def test_a_server_on_the_network_is_asked_by_address_or_by_the_machines_names(host: str) -> None:
    assert await is_let_in(reached(), host)
    assert await is_let_in(reached("models.lan"), host)
    assert not await is_let_in(loopback(), host)


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("models.lan", True),
        ("MODELS.lan:8080", True),
        ("a.models.lan", False),
        ("a.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("badexample.org", False),
        ("evil.lan", False),
    ],
)
async def test_names_that_are_configured_are_answered_to(host: str, is_allowed: bool) -> None:
    for names in (loopback("Models.LAN", "*.Example.org"), reached("Models.LAN", "*.Example.org")):
        assert await is_let_in(names, host) is is_allowed


def test_keys_or_a_star_make_names_unimportant_where_others_reach_the_server() -> None:
    assert host_names("0.0.0.0", (), (), is_mounted=False, has_keys=True) is None
    assert host_names("0.0.0.0", ("models.lan",), (), is_mounted=False, has_keys=True) is not None
    assert host_names("127.0.0.1", (), (), is_mounted=False, has_keys=True) is not None
    assert host_names("127.0.0.1", ("*",), (), is_mounted=False, has_keys=False) is None


async def test_under_another_server_names_count_only_where_they_are_configured() -> None:
    assert host_names("127.0.0.1", (), (), is_mounted=True, has_keys=False) is None
    names = host_names("127.0.0.1", ("models.lan",), (), is_mounted=True, has_keys=False)
    assert names is not None
    assert await is_let_in(names, "models.lan")
    assert not await is_let_in(names, "evil.example")


def test_the_machines_names_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Box.corp.example")
    monkeypatch.setattr("socket.getfqdn", lambda name: f"{name}.")
    assert own_names() == {"box.corp.example", "box", "box.local", "box.corp.example."}
