"""TLS for servers without a proxy in front."""

from __future__ import annotations

import logging
import ssl
import stat
from pathlib import Path
from typing import Final, NoReturn

from modelyard.config import Server
from modelyard.errors import ConfigError

logger = logging.getLogger(__name__)

_READABLE_BY_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH


class Certificate:
    """A certificate for TLS 1.2 or later.

    Args:
        certificate: file of the certificate, with its chain.
        key: file of the private key.

    Attributes:
        context: the TLS context of new connections.

    Raises:
        ConfigError: a file is missing or invalid, or the key does not belong to the certificate.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self.renew()

    def renew(self) -> None:
        """Read the files again. Thread-safe.

        Raises:
            ConfigError: the files cannot be used; the previous certificate stays in use.
        """
        self.context = _context(*self._files)


def certificate_of(server: Server) -> Certificate | None:
    """Return the certificate of the configuration; None: connections are not encrypted.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    if server.ssl_certfile is None:
        return None
    return Certificate(server.ssl_certfile, server.ssl_keyfile or server.ssl_certfile)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    for name, path in (("ssl_certfile", certificate), ("ssl_keyfile", key)):
        _check_readable(name, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that closes without close_notify has its answer already, so this is no error.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificate, key)
    if key.stat().st_mode & _READABLE_BY_OTHERS:
        logger.warning("Other users of the machine can read the private key %s: run chmod 600 on it.", key)
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        # Without a callback, OpenSSL would ask for a password on the terminal.
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except _Encrypted:
        _fail("ssl_keyfile", f"'{key}' is encrypted. Decrypt it with: openssl pkey -in {key} -out <new file>.")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            _fail("ssl_keyfile", f"the private key in '{key}' does not belong to the certificate in '{certificate}'.")
        name, path = ("ssl_certfile", certificate) if not _has_certificate(certificate) else ("ssl_keyfile", key)
        what = "certificate" if name == "ssl_certfile" else "private key"
        _fail(name, f"'{path}' holds no {what} in PEM format that can be used ({error.reason or error}).")
    except OSError as error:
        _fail("ssl_certfile", f"'{certificate}' or '{key}' cannot be read: {error.strerror}.")


class _Encrypted(Exception):
    pass


def _refuse_password() -> str:
    raise _Encrypted


def _check_readable(name: str, path: Path) -> None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            _fail(name, f"'{path}' is not a file.")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        _fail(name, f"'{path}' does not exist.")
    except OSError as error:
        _fail(name, f"'{path}' cannot be read: {error.strerror}.")


def _has_certificate(path: Path) -> bool:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return False
    return bool(context.cert_store_stats()["x509"])


def _fail(name: str, problem: str) -> NoReturn:
    raise ConfigError("[server]", [f"{name}: {problem}"])
