"""A process of engines: the same engines that run as threads of a server, with a connection to it in between."""

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
    """The engines of one process: those that share their weights."""

    def __init__(self, channel: Channel, table: EngineTable) -> None:
        self._channel = channel
        self._pool, self._device, self._templates = WeightsPool(), Device(table), RemoteTemplates(channel)
        self._engines: dict[int, Engine] = {}
        self._parked: dict[int, HeldWeights] = {}

    def run(self) -> None:
        """Do what the server says until it is gone, or has nothing more to say."""
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
                    self._templates.hear(message)
                case ReleaseWeights(number):
                    self._parked.pop(number).release()

    def _publisher(self, number: int) -> Publish:
        def publish(events: Sequence[Event]) -> None:
            """Called on an engine's thread, with all events of a step."""
            last, has_parked = events[-1], False
            if isinstance(last, Stopped) and last.parked is not None:
                self._parked[number], has_parked = last.parked, True
                events = (*events[:-1], replace(last, parked=None))
            try:
                self._channel.send(FromEngine(number, tuple(events), has_parked))
            except ChannelClosed:
                # The server is gone, and with it whoever could hear of it: ``run`` ends this process.
                return
            except Exception:
                # Most often there is no memory left. Without these events callers would wait for ever; from the end of
                # the process the server knows what to do.
                logger.exception("Events of an engine cannot be sent")
                os._exit(1)

        return publish


class _LogToServer(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Have the server log it."""
        try:
            text = self.format(record)
            self._channel.send(LogLine(record.name, record.levelno, text))
        except (ChannelClosed, OSError):
            return


def main(connection: socket.socket, setup: dict[str, Any]) -> None:
    """Run engines until the connection is closed.

    Args:
        connection: to the server.
        setup: "log_level" is that of the server's log, "table" the file of its table of engines.
    """
    _leave_no_core_dump()
    channel = Channel(connection)
    root = logging.getLogger()
    root.handlers = [_LogToServer(channel)]
    root.setLevel(int(setup["log_level"]))
    threading.excepthook = _end_process
    EngineProgram(channel, EngineTable.open(Path(setup["table"]))).run()


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """A thread that somebody waits for has died: the server goes on from the end of the process."""
    traceback.print_exception(failure.exc_value)
    os._exit(1)


def _leave_no_core_dump() -> None:
    """A process with a model in it would take seconds, and the disk, to be written down before it is started again."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
