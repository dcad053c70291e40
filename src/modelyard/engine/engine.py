"""One model's engine on a thread: messages in, events out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from modelyard.engine.chat.template_processes import RendersTemplates, TemplateProcesses
from modelyard.engine.loading.weights import WeightsPool
from modelyard.engine.messages import LoopMessage
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.settings import EngineSettings
from modelyard.engine.suspects import SuspectQueue
from modelyard.engine.worker import run_engine
from modelyard.protocol.events import Event, Publish
from modelyard.protocol.messages import Message
from modelyard.protocol.requests import Stop


class Engine:
    """A thread that loads one model and serves it until it is stopped.

    Events arrive through ``publish``, on the engine's thread: LoadProgress, then Loaded or LoadFailed, then those of
    the sequences, and Stopped or Died as the last. LoadFailed, Stopped and Died mean that all memory is free again;
    Dying comes before Died, and before the last events of the sequences.

    Engines that share a ``pool`` share the weights of files that they have in common; engines that share a
    ``device`` compute by their weights and priorities. Engines that share ``templates`` render in the same processes.
    """

    def __init__(
        self,
        settings: EngineSettings,
        publish: Publish,
        pool: WeightsPool | None = None,
        device: Device | None = None,
        templates: RendersTemplates | None = None,
    ) -> None:
        self._inbox: SimpleQueue[LoopMessage] = SimpleQueue()
        self._suspects = SuspectQueue(self._inbox.put)
        self._publish = publish
        self._stopping = threading.Event()
        # A daemon, so that an interpreter that exits without closing the yard is not blocked.
        self._thread = threading.Thread(
            target=run_engine,
            args=(
                settings,
                pool or WeightsPool(),
                device or Device(),
                templates or TemplateProcesses(),
                self._inbox,
                self._publish_events,
                self._stopping.is_set,
            ),
            name=f"engine {settings.name}",
            daemon=True,
        )

    def start(self) -> None:
        """Start loading."""
        self._thread.start()

    def send(self, message: Message) -> None:
        """Send a message to the engine; never blocks. Messages are handled in order, before the next step."""
        # Passes every message on to the inbox, and holds back only suspects of an earlier death.
        self._suspects.submit(message)
        if isinstance(message, Stop):
            # Set after the message is queued, so that a load that is cancelled finds it.
            self._stopping.set()

    def _publish_events(self, events: Sequence[Event]) -> None:
        self._publish(events)
        self._suspects.observe(events)

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
