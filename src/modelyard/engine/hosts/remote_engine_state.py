"""The server's state of one engine that runs in another process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from modelyard.engine.hosts.records import RequestRecords
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Died, Dying, Event, Publish
from modelyard.protocol.messages import Message
from modelyard.protocol.requests import Cancel, Stop

# An engine reads its messages before each step, and no step takes as long on any usable machine.
MAX_SILENT_S: Final = 300.0


@dataclass(slots=True, eq=False)
class RemoteEngineState:
    """The server's record of one engine in a process.

    Attributes:
        number: identifies it in messages to and from the process.
        identity: identity in its profile; None until it has loaded.
        is_over: set before its last event is published.
        unanswered_since: when a Cancel or Stop was sent after which no event has come, on the monotonic clock; None if
            there is none.
    """

    number: int
    settings: EngineSettings
    publish: Publish
    records: RequestRecords = field(default_factory=RequestRecords)
    identity: str | None = None
    is_over: threading.Event = field(default_factory=threading.Event)
    unanswered_since: float | None = None

    def on_send(self, message: Message) -> None:
        """Record a message that is about to be sent to the engine."""
        self.records.add(message)
        if isinstance(message, Cancel | Stop) and self.unanswered_since is None:
            self.unanswered_since = time.monotonic()

    def hang_reason(self) -> str | None:
        """Why the engine counts as hanging in llama.cpp; None if it does not."""
        since = self.unanswered_since
        if since is None or time.monotonic() <= since + MAX_SILENT_S:
            return None
        return f"it has not answered a request to end something for {MAX_SILENT_S:.0f} s"

    def finish(self, events: Sequence[Event]) -> None:
        """Publish the engine's last events."""
        self.is_over.set()
        self.publish(events)

    def die(self, reason: str, active: AbstractSet[int]) -> None:
        """Publish the death of the engine, which ended with its process.

        active: requests that the process was computing or tokenising.
        """
        left = self.records.drain(self.identity or "")
        if self.identity is None:
            self.finish([*left, Died(reason)])
            return
        own = tuple(event.sequence for event in left if event.sequence in active)
        self.finish([Dying(reason, own), *left, Died(reason)])
