"""One model's engine, as the rest of the process sees it: messages in, events out."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from modelyard.engine.loop import Publish, run_engine
from modelyard.engine.messages import Message, Stop
from modelyard.engine.settings import EngineSettings


class Engine:
    """A thread that loads one model and serves it until it is stopped.

    Events arrive through ``publish``, on the engine's thread: LoadProgress, then Loaded or LoadFailed, then those of
    the sequences, and Stopped or Died as the last. LoadFailed, Stopped and Died mean that all memory is free again.
    """

    def __init__(self, settings: EngineSettings, publish: Publish) -> None:
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._stopping = threading.Event()
        # A daemon, so that an interpreter that exits without closing the yard does not hang on it.
        self._thread = threading.Thread(
            target=run_engine,
            args=(settings, self._inbox, publish, self._stopping.is_set),
            name=f"engine {settings.name}",
            daemon=True,
        )

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def send(self, message: Message) -> None:
        """Hand a message to the engine; never blocks. Messages are taken in order, before the next step."""
        if isinstance(message, Stop):
            self._stopping.set()
        self._inbox.put(message)

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
