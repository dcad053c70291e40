"""Whose words count about a request that a proxy passes on."""

from __future__ import annotations

import pytest

from modelyard.inprocess.http_server.forwarded import TrustedProxies, forwarded, with_hosts

PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])


def client(*values: str) -> str | None:
    return forwarded([(b"x-forwarded-for", value.encode()) for value in values], PROXIES).client


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        ("127.0.0.1", True),
        ("10.9.8.7", True),
        ("::ffff:10.9.8.7", True),
        ("fd12::1", True),
        ("127.0.0.2", False),
        ("192.0.2.1", False),
        ("", False),
    ],
)
def test_networks_are_trusted(host: str, is_trusted: bool) -> None:
    assert (host in PROXIES) is is_trusted
    assert host not in TrustedProxies([])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        # What the client wrote itself stands before what the proxies append.
        (["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
        (["127.0.0.1, 192.0.2.1, 10.0.0.5"], "192.0.2.1"),
        (["10.0.0.5"], "10.0.0.5"),
        (["192.0.2.1, nonsense"], None),
        (["nonsense, 10.0.0.5"], "10.0.0.5"),
        ([""], None),
        ([], None),
    ],
)
def test_the_client_is_the_last_that_is_no_proxy(values: list[str], expected: str | None) -> None:
    assert client(*values) == expected


def test_scheme_and_hosts() -> None:
    headers = [
        (b"host", b"127.0.0.1:1234"),
        (b"x-forwarded-proto", b"http, HTTPS"),
        (b"x-forwarded-host", b"models.example, evil.example"),
    ]
    said = forwarded(headers, PROXIES)
    assert (said.scheme, said.hosts) == ("https", (b"models.example", b"evil.example"))
    hosts = [value for name, value in with_hosts(headers, said.hosts) if name == b"host"]
    assert hosts == [b"models.example", b"evil.example"]
    assert forwarded([(b"x-forwarded-proto", b"javascript")], PROXIES).scheme is None
