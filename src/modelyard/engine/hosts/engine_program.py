"""The program of a process of engines, which are those that also run on threads, behind a connection to the server."""

from __future__ import annotations

import logging
import os
import socket
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelyard.engine.engine import Engine
from modelyard.engine.hosts.channel import Channel, ChannelClosed
from modelyard.engine.hosts.protocol import FromEngine, LogLine, ReleaseWeights, StartEngine, TemplateAnswer, ToEngine
from modelyard.engine.hosts.remote_templates import RemoteTemplates
from modelyard.engine.loading.weights import WeightsPool
from modelyard.engine.scheduling.engine_table import EngineTable
from modelyard.engine.scheduling.fair_share import Device
from modelyard.protocol.events import Event, HeldWeights, Publish, Stopped

logger = logging.getLogger(__name__)


class EngineProgram:
    """The engines of one process, which share their weights."""

    def __init__(self, channel: Channel, table: EngineTable) -> None:
        self._channel = channel
        self._pool, self._device, self._templates = WeightsPool(), Device(table), RemoteTemplates(channel)
        self._engines: dict[int, Engine] = {}
        self._parked: dict[int, HeldWeights] = {}

    def run(self) -> None:
        """Execute the server's messages until the connection is closed."""
        while True:
            try:
                message = self._channel.receive()
            except ChannelClosed:
                return
            match message:
                case ToEngine(number, content):
                    self._engines[number].send(content)
                case StartEngine(number, settings):
                    engine = self._engines[number] = Engine(
                        settings, self._publisher(number), self._pool, self._device, self._templates
                    )
                    engine.start()
                case TemplateAnswer():
                    self._templates.on_answer(message)
                case ReleaseWeights(number):
                    self._parked.pop(number).release()

    def _publisher(self, number: int) -> Publish:
        def publish(events: Sequence[Event]) -> None:
            """Send all events of a step; called on the engine's thread."""
            last, has_parked = events[-1], False
            if isinstance(last, Stopped) and last.parked is not None:
                self._parked[number], has_parked = last.parked, True
                events = (*events[:-1], replace(last, parked=None))
            try:
                self._channel.send(FromEngine(number, tuple(events), has_parked))
            except ChannelClosed:
                # The server is gone; ``run`` ends this process.
                return
            except Exception:
                # Most often there is no memory left. Without these events callers would wait for ever, whereas the
                # server handles the end of the process.
                logger.exception("Events of an engine cannot be sent")
                os._exit(1)

        return publish


class _LogToServer(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record to the server's log."""
        try:
            text = self.format(record)
            self._channel.send(LogLine(record.name, record.levelno, text))
        except (ChannelClosed, OSError):
            return


def main(connection: socket.socket, setup: dict[str, Any]) -> None:
    """Run engines until the connection is closed.

    Args:
        connection: connection to the server.
        setup: "log_level" is the level of the server's log, "table" the file of its table of engines.
    """
    _disable_core_dumps()
    channel = Channel(connection)
    root = logging.getLogger()
    root.handlers = [_LogToServer(channel)]
    root.setLevel(int(setup["log_level"]))
    threading.excepthook = _end_process
    EngineProgram(channel, EngineTable.open(Path(setup["table"]))).run()


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """End the process after an exception in a thread, because the server handles the end of a process."""
    traceback.print_exception(failure.exc_value)
    os._exit(1)


def _disable_core_dumps() -> None:
    """Disable core dumps, which take seconds, and disk space, for a process with a model before it is restarted."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
