"""Follows the events of a server, also over an interruption, such as a server that is started again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from modelyard.cli.client.connection import ServerAddress, event_object, events
from modelyard.cli.messages import print_note
from modelyard.errors import ServerUnreachable
from modelyard.system.announcements import is_running

RECONNECT_S: Final = 60.0
"""How long a server may be away, as one is that was started again, or that waits for its answers before it ends."""
_RETRY_S: Final = 0.5
# The server sends a comment every ten seconds.
_SILENCE_S: Final = 35.0


def followed(address: ServerAddress, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and objects of the events of ``GET path``, until a server of this machine has stopped.

    Raises:
        ServerUnreachable: the server is not there, or does not come back in time.
        NotModelyard, ServerRefused: as ``connection.get``.
    """
    last_id, lost_at = "", None
    while True:
        try:
            with events(address, path, silence_s=_SILENCE_S, last_id=last_id) as stream:
                for event in stream:
                    lost_at = None
                    last_id = event.id or last_id
                    if event.name:
                        yield event.name, event_object(address, path, event)
            lost_at = time.monotonic() if lost_at is None else lost_at
        except ServerUnreachable:
            if lost_at is None or time.monotonic() - lost_at > RECONNECT_S:
                raise
        if address.announcement is not None and not is_running(address.announcement):
            print_note("The server has stopped.")
            return
        time.sleep(_RETRY_S)
