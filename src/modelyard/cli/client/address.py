"""The address of a server, as users write it: in --url, and in MODELYARD_HOST as in Ollama's OLLAMA_HOST."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from modelyard.cli.exit_codes import USAGE
from modelyard.errors import ConfigError

DEFAULT_PORT: Final = 1234
DEFAULT_URL: Final = f"http://127.0.0.1:{DEFAULT_PORT}"

ALL_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that a server listens on to be reached by any -> the address of this machine in their place."""
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST: Final = re.compile(r"[\w.-]+", re.ASCII)


class InvalidOption(ConfigError):
    """An option or a variable holds what it cannot mean. It is an error of the command line."""

    exit_code = USAGE


def parse_url(text: str, source: str) -> str:
    """Return the URL of a server, without ``/v1`` and without a slash at its end.

    It may be a URL, ``host``, ``host:port``, ``:port`` or a port alone. Without a scheme, the port is 1234 by default;
    with one, it is that of the scheme. A path is kept: a proxy may serve Modelyard below one.

    Args:
        text: what the user wrote.
        source: where, such as "--url".

    Raises:
        InvalidOption: it is not such an address.
    """
    text = text.strip().strip("\"'").strip()
    if not text.isprintable() or " " in text:
        raise _invalid(source, text, "it holds blanks or control characters")
    if text.startswith(("/", "unix:")):
        raise _invalid(source, text, "a server listens on a TCP address, not on a socket file")
    has_scheme = _SCHEME.match(text) is not None
    if not has_scheme:
        text = f"http://{_with_brackets(text)}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _invalid(source, text, str(error).lower()) from error
    if parts.scheme not in ("http", "https"):
        raise _invalid(source, text, f"the scheme is http or https, not {parts.scheme}")
    if parts.username is not None or parts.password is not None:
        # The text is not repeated: it holds the secret.
        raise InvalidOption(source, ["An address with a password is not taken: put the key into MODELYARD_API_KEY."])
    if parts.query or parts.fragment:
        raise _invalid(source, text, "it goes on after the path")
    if has_scheme and not host and port is None:
        raise _invalid(source, text, "it names no host")
    host = ALL_HOSTS.get(host, host) or "127.0.0.1"
    if not _is_host(host):
        raise _invalid(source, text, f"'{host}' is no name of a host")
    if port == 0:
        raise _invalid(source, text, "0 is no port of a server")
    if port is None and not has_scheme:
        port = DEFAULT_PORT
    path = re.sub("/+", "/", parts.path).rstrip("/").removesuffix("/v1")
    return f"{origin(parts.scheme, host, port)}{path}"


def origin(scheme: str, host: str, port: int | None) -> str:
    """Return the URL of a server, without a path; None as the port is that of the scheme."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}{'' if port is None else f':{port}'}"


def _with_brackets(text: str) -> str:
    """Return ``text`` with a bare port or IPv6 address as it is written in a URL."""
    if text.isdecimal():
        return f":{text}"
    try:
        return f"[{ipaddress.IPv6Address(text)}]"
    except ValueError:
        return text


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return True
    return len(host) <= 253 and _HOST.fullmatch(host) is not None


def _invalid(source: str, text: str, why: str) -> InvalidOption:
    form = f"Write host, host:port, :port or a URL such as {DEFAULT_URL}."
    return InvalidOption(source, [f"{text!r} is no address of a server: {why}. {form}"])
