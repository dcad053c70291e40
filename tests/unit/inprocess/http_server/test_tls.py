"""TLS: what is said of files that cannot be used, and what is spoken with those that can."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from pathlib import Path

import pytest

from modelyard.config import Server
from modelyard.errors import ConfigError
from modelyard.inprocess.http_server.limits import MAX_HEAD_S
from modelyard.inprocess.http_server.places import Loss
from modelyard.inprocess.http_server.tls import Certificate, certificate_of
from support.raw_http import site
from unit.inprocess.http_server.test_protocol import POST, Echo, refused

FILES = Path(__file__).resolve().parents[3] / "support" / "certificates"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files, as an operator has them: nobody else reads the keys."""
    for file in FILES.glob("*.*"):
        Path(shutil.copy(file, tmp_path)).chmod(0o600)
    return tmp_path


def settings(folder: Path, certificate: str = "server.pem", key: str | None = "server.key") -> Server:
    return Server(ssl_certfile=folder / certificate, ssl_keyfile=None if key is None else folder / key)


def problem(server: Server) -> str:
    with pytest.raises(ConfigError) as refused:
        certificate_of(server)
    return str(refused.value)


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=FILES / "server.pem")


def test_without_a_certificate_nothing_is_encrypted() -> None:
    assert certificate_of(Server()) is None


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("missing.pem", "server.key", "ssl_certfile: '{folder}/missing.pem' does not exist."),
        ("server.pem", "missing.key", "ssl_keyfile: '{folder}/missing.key' does not exist."),
        (".", "server.key", "ssl_certfile: '{folder}' is not a file."),
        ("server.pem", "other.key", "does not belong to the certificate in '{folder}/server.pem'"),
        ("server.pem", "encrypted.key", "ssl_keyfile: '{folder}/encrypted.key' is encrypted. Decrypt it with: openssl"),
        ("server.pem", None, "ssl_keyfile: '{folder}/server.pem' holds no private key in PEM format"),
        ("README.md", "server.key", "ssl_certfile: '{folder}/README.md' holds no certificate in PEM format"),
        ("server.key", "server.key", "ssl_certfile: '{folder}/server.key' holds no certificate in PEM format"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(folder: Path, certificate: str, key: str | None, said: str) -> None:
    assert said.format(folder=folder) in problem(settings(folder, certificate, key))


def test_a_key_that_others_can_read_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert certificate_of(settings(folder)) is not None
        assert not caplog.records
        (folder / "server.key").chmod(0o644)
        assert certificate_of(settings(folder)) is not None
    assert "chmod 600" in caplog.text


def test_both_may_be_in_one_file(folder: Path) -> None:
    both = folder / "both.pem"
    both.write_bytes((folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes())
    both.chmod(0o600)
    assert certificate_of(settings(folder, "both.pem", None)) is not None


def test_a_certificate_is_renewed_unless_it_cannot_be_used(folder: Path) -> None:
    certificate = Certificate(folder / "server.pem", folder / "server.key")
    first = certificate.context
    certificate.renew()
    second = certificate.context
    assert second is not first
    shutil.copy(folder / "other.key", folder / "server.key")
    with pytest.raises(ConfigError, match="does not belong"):
        certificate.renew()
    assert certificate.context is second


async def test_requests_are_answered_over_tls(folder: Path) -> None:
    echo = Echo()
    async with (
        site(echo, certificate_of(settings(folder))) as served,
        served.client(ssl=client_context(), server_hostname="localhost") as client,
    ):
        for _ in range(2):
            await client.send(POST + b"Content-Length: 5\r\n\r\nhello")
            assert (await client.answer()).endswith(b"5")
        await client.send(b"A" * 100)
        assert refused(await client.rest())[0] == 400
    assert [scope["scheme"] for scope in echo.scopes] == ["https", "https"]
    assert echo.scopes[0]["client"][0] == "127.0.0.1"


async def test_old_versions_of_tls_are_not_spoken(folder: Path) -> None:
    context = client_context()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with site(Echo(), certificate_of(settings(folder))) as served:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            async with served.client(ssl=context, server_hostname="localhost"):
                pass
        await served.until(lambda: len(served.connections.places) == 0)


async def test_a_handshake_has_the_deadline_of_a_head(folder: Path) -> None:
    async with site(Echo(), certificate_of(settings(folder))) as served, served.client() as silent:
        await served.until(lambda: len(served.connections.places) == 1)
        served.connections.advance(MAX_HEAD_S + 1)
        assert await silent.rest() == b""
        assert len(served.connections.places) == 0


async def test_who_does_not_speak_tls_is_closed_and_counted(folder: Path) -> None:
    async with site(Echo(), certificate_of(settings(folder))) as served, served.client() as plain:
        await plain.send(POST + b"\r\n")
        await asyncio.wait_for(plain.rest(), 10)
        await served.until(lambda: len(served.connections.places) == 0)
        assert served.connections.losses.total[Loss.HANDSHAKE] == 1


async def test_a_server_that_stops_does_not_wait_for_handshakes(folder: Path) -> None:
    async with site(Echo(), certificate_of(settings(folder))) as served, served.client() as silent:
        await served.until(lambda: len(served.connections.places) == 1)
        await served.stop()
        assert await silent.rest() == b""
