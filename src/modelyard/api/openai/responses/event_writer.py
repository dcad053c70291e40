"""Writes the events of one streamed response."""

from __future__ import annotations

import secrets
from typing import Any, Final

import orjson

_OBFUSCATION_CHARACTERS: Final = 16


class EventWriter:
    """Writes events, numbered from 0.

    Args:
        obfuscates: whether events with a piece of text have a field that hides how long it is.
    """

    def __init__(self, *, obfuscates: bool) -> None:
        self._obfuscates = obfuscates
        self._sequence = 0

    def event(self, kind: str, /, **fields: Any) -> bytes:
        """Return an event of the type ``kind``."""
        data = orjson.dumps({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def delta(self, kind: str, delta: str, /, **fields: Any) -> bytes:
        """Return an event with a piece of text."""
        if self._obfuscates:
            length = secrets.randbelow(_OBFUSCATION_CHARACTERS) + 1
            fields["obfuscation"] = secrets.token_urlsafe(_OBFUSCATION_CHARACTERS)[:length]
        return self.event(kind, delta=delta, **fields)
