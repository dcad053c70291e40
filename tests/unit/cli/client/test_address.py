from __future__ import annotations

import pytest

from modelyard.cli.client.address import parse_url
from modelyard.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("box", "http://box:1234"),
        ("box:8080", "http://box:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("8080", "http://127.0.0.1:8080"),
        ("10.0.0.7", "http://10.0.0.7:1234"),
        ("http://box", "http://box"),
        ("https://box.example", "https://box.example"),
        ("HTTP://Box:80/", "http://box:80"),
        ("http://box:1234/v1", "http://box:1234"),
        ("http://box:1234/v1/", "http://box:1234"),
        ("https://box/llm//v1/", "https://box/llm"),
        ("box:1234/v1", "http://box:1234"),
        ("0.0.0.0", "http://127.0.0.1:1234"),
        ("http://0.0.0.0:99", "http://127.0.0.1:99"),
        ("::", "http://[::1]:1234"),
        ("[::]:99", "http://[::1]:99"),
        ("::1", "http://[::1]:1234"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("http://[fe80::1%25eth0]:1", "http://[fe80::1%25eth0]:1"),
        ("  'box:1234' ", "http://box:1234"),
        ("http://:99", "http://127.0.0.1:99"),
        ("", "http://127.0.0.1:1234"),
    ],
)
def test_an_address_is_taken_as_ollama_takes_it(text: str, url: str) -> None:
    assert parse_url(text, "--url") == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ftp://box", "http or https"),
        ("box:0", "0 is no port"),
        ("box:99999", "port"),
        ("box:port", "port"),
        ("unix:/run/x.sock", "TCP"),
        ("/run/x.sock", "TCP"),
        ("http://", "no host"),
        ("bo x", "blanks"),
        ("b,x", "no name of a host"),
        ("http://box?model=x", "goes on"),
        ("http://[::1", "ipv6"),
        ("a\nb", "blanks"),
    ],
)
def test_what_is_no_address_is_refused_by_the_name_of_its_source(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_url(text, "MODELYARD_HOST")
    assert "MODELYARD_HOST" in str(refused.value)
    assert why in str(refused.value)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_url("http://user:geheim@box", "--url")
    assert "geheim" not in str(refused.value)
