"""Secrets of servers, which texts that are logged or shown do not repeat. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from modelyard.config import McpServer

# Shorter values would be replaced in words that they are a part of by chance.
_MIN_CHARS: Final = 4


def secrets_of(server: McpServer) -> tuple[str, ...]:
    """Return what must not be shown of a server's configuration."""
    values = [value.get_secret_value() for _, value in (*server.env, *server.headers)]
    if server.bearer_token is not None:
        values.append(server.bearer_token.get_secret_value())
    return hidden(values)


def hidden(values: Iterable[str]) -> tuple[str, ...]:
    """Return those of the values that can be hidden in texts, the longest first, since one may be a part of another."""
    return tuple(sorted({value for value in values if len(value) >= _MIN_CHARS}, key=len, reverse=True))


def without_secrets(text: str, secrets: Sequence[str]) -> str:
    """Return a text with ``…`` in place of the secrets, as ``hidden`` returns them."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return text
