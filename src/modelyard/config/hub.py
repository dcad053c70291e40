"""Settings of the hub: the source of the token, and the repositories with siblings of a model."""

from __future__ import annotations

import os
from typing import Final

from modelyard.config.bounded_read import NotReadable, read_regular
from modelyard.errors import ConfigError
from modelyard.system.typed_paths import expanded

_MAX_TOKEN_BYTES: Final = 64 * 1024

PATH_SOURCE: Final = "path:"
"""What a token source begins with that names a file."""

_WITH_VALUE: Final = ("literal", "path")
TOKEN_SOURCE_WORDING: Final = "cache, env:VARIABLE, path:FILE, literal:TOKEN or none"

# The default of mistral.rs. Source: its token_source grammar.
_DEFAULT_VARIABLE: Final = "HUGGING_FACE_HUB_TOKEN"


def check_token_source(source: str) -> None:
    """Refuse an invalid token source. The message does not repeat it, because it may be the token itself.

    Raises:
        ValueError: the message says what is allowed.
    """
    kind, _, value = source.partition(":")
    if kind in _WITH_VALUE and not value:
        raise ValueError(f"must have a value after '{kind}:'; write {TOKEN_SOURCE_WORDING}")
    if kind not in (*_WITH_VALUE, "env") and source not in ("cache", "none"):
        raise ValueError(f"must be {TOKEN_SOURCE_WORDING}")


def read_token(source: str) -> str | bool | None:
    """Return the token of a token source; None: the token of the login; False: no token.

    Raises:
        ConfigError: the variable is not set, or the file cannot be read.
    """
    kind, _, value = source.partition(":")
    match kind:
        case "literal":
            return value
        case "none":
            return False
        case "env":
            name = value or _DEFAULT_VARIABLE
            if not os.environ.get(name):
                raise ConfigError("token_source", [f"The environment variable {name} is not set."])
            return os.environ[name]
        case "path":
            try:
                return read_regular(expanded(value), _MAX_TOKEN_BYTES).decode().strip()
            except OSError as error:
                raise _unreadable(value, f"{error.strerror}.") from error
            except (NotReadable, UnicodeDecodeError) as error:
                raise _unreadable(value, str(error)) from error
        case _:
            return None


def _unreadable(path: str, reason: str) -> ConfigError:
    return ConfigError("token_source", [f"The file '{path}' with the hub's token cannot be read: {reason}"])


def check_sibling(pattern: str) -> str:
    """Refuse a pattern that does not give a hub id.

    Raises:
        ValueError: the message says what is allowed.
    """
    try:
        repo = pattern.format(repo="org/name", organisation="org", name="name")
    except (KeyError, IndexError, ValueError):
        raise ValueError("may hold {repo}, {organisation} and {name}, and no other braces") from None
    if repo.count("/") != 1:
        raise ValueError("must become org/name")
    return pattern
