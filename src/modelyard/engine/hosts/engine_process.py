"""One process of engines, from before its start until after its end."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue
from typing import IO, Final

from modelyard.engine.hosts.channel import Channel, ChannelClosed
from modelyard.engine.hosts.codec import ForeignValue
from modelyard.engine.hosts.last_words import how_it_ended
from modelyard.engine.hosts.protocol import (
    AskTemplate,
    FromEngine,
    LogLine,
    ReleaseWeights,
    StartEngine,
    ToEngine,
    ToProcess,
)
from modelyard.engine.hosts.remote_engine_state import RemoteEngineState
from modelyard.engine.hosts.remote_templates import TemplateRenderer
from modelyard.engine.hosts.spawner import EngineSpawner, SpawnedProcess, SpawnFailed
from modelyard.engine.scheduling.engine_table import EngineTable
from modelyard.errors import EngineError, InvalidRequest
from modelyard.protocol.events import Died, Event, Failed, Loaded, LoadFailed, ParkedWeightsLost, Stopped
from modelyard.protocol.messages import Message, Request

logger = logging.getLogger(__name__)

# Limit of the wait for a process that has closed its connection: the kernel may have many gigabytes to free.
_END_S: Final = 30.0
_MAX_LOG_BYTES: Final = 4000

POLL_S: Final = 5.0
"""Interval at which engines are checked for hanging while the process sends nothing."""


class EngineProcess:
    """One process of engines that share their files. Every method may be called on any thread.

    Attributes:
        pid: process id; None before it is started, and once it has ended: the kernel may give its id to another.
    """

    def __init__(self, spawner: EngineSpawner, table: EngineTable, renderer: TemplateRenderer) -> None:
        self.pid: int | None = None
        self._spawner, self._table, self._renderer = spawner, table, renderer
        self._spawned: SpawnedProcess | None = None
        # Why it was killed; "" if it was not.
        self._kill_reason = ""
        # Records in the table that are reserved for engines of this process.
        self._reserved = 0
        self._lock = threading.Lock()
        self._engines: dict[int, RemoteEngineState] = {}
        self._parked: dict[int, RemoteEngineState] = {}
        # Whether it accepts no more engines.
        self._is_ending = False
        self._is_over = threading.Event()
        # None is the last item.
        self._outbox: SimpleQueue[ToProcess | None] = SimpleQueue()
        # Publishes the last events of its last engine, once the process has ended and its memory is free.
        self._publish_last_events: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Start the thread that starts the process and reads its messages."""
        threading.Thread(target=self._run, name="engine process", daemon=True).start()

    def add(self, engine: RemoteEngineState) -> bool:
        """Start an engine in the process; return False if the process is about to end."""
        with self._lock:
            if self._is_ending:
                return False
            self._engines[engine.number] = engine
            self._outbox.put(StartEngine(engine.number, engine.settings))
            return True

    def send(self, engine: RemoteEngineState, message: Message) -> None:
        """Send a message to one of its engines; an engine that has ended ignores it."""
        engine.on_send(message)
        self._outbox.put(ToEngine(engine.number, message))

    def release(self, engine: int) -> None:
        """Release the weights that an engine has parked.

        If nothing else is in the process, wait for its end, which frees them.
        """
        with self._lock:
            if self._parked.pop(engine, None) is None:
                return
            if self._engines or self._parked:
                self._outbox.put(ReleaseWeights(engine))
                return
            self._begin_end()
        self._is_over.wait(_END_S)

    def kill(self, reason: str) -> None:
        """Kill the process, because an engine in it hangs; its engines die of ``reason``."""
        process = self._spawned
        if process is not None and not self._is_over.is_set():
            self._kill_reason = reason
            process.kill()

    def _begin_end(self) -> None:
        """Let the process end, in which nothing is left. The caller holds the lock."""
        self._is_ending = True
        self._outbox.put(None)

    def _run(self) -> None:
        """Start the process, read its messages to its end, and publish how it ended."""
        with ExitStack() as stack:
            try:
                log = stack.enter_context(tempfile.TemporaryFile())
                channel, theirs = Channel.pair()
                stack.callback(channel.close)
                with theirs:
                    process = self._spawner.spawn(theirs, log.fileno())
            except (OSError, SpawnFailed) as failed:
                self._fail_loads(f"Its process cannot be started: {failed}")
                return
            self.pid, self._spawned = process.pid, process
            writer = threading.Thread(
                target=self._write, args=(channel, process.pid), name="to engine process", daemon=True
            )
            writer.start()
            try:
                self._read(channel)
            except Exception:
                # The edge of the thread: without last events, the callers of these models would wait for ever.
                logger.exception("A process of engines is killed: its messages cannot be read")
                process.kill()
            has_ended = self._wait(process)
            self._outbox.put(None)
            channel.close_sending()
            writer.join(_END_S)
            reason = self._kill_reason or how_it_ended(process.status if has_ended else None, _end_of(log))
            process.discard_status()
            self.pid = None
        activities = self._table.release_of(process.pid)
        self._publish_end(reason, {number for each in activities for number in (*each.computing, *each.reading)})

    def _write(self, channel: Channel, pid: int) -> None:
        try:
            while (message := self._outbox.get()) is not None:
                if isinstance(message, StartEngine):
                    self._reserve(pid, message.settings.name)
                try:
                    channel.send(message)
                except ForeignValue as foreign:
                    self._refuse(message, str(foreign))
        except ChannelClosed:
            # The reading thread reports the end of the process.
            return
        except (OSError, EngineError) as error:
            # There is no memory for a KV state, or no free record in the table.
            logger.error("A process of engines is ended: %s", error)
        channel.close_sending()

    def _refuse(self, message: ToProcess, reason: str) -> None:
        """Fail the request in a message that cannot be encoded; messages without a request are logged."""
        engine = self._engines.get(message.engine) if isinstance(message, ToEngine) else None
        request = message.message if isinstance(message, ToEngine) else None
        if engine is None or not isinstance(request, Request):
            logger.error("%s cannot be sent to a process of engines: %s", type(message).__name__, reason)
            return
        failed = Failed(
            request.sequence, InvalidRequest(f"The request cannot be handed to its model's process: {reason}.")
        )
        engine.records.update([failed])
        engine.publish([failed])

    def _reserve(self, pid: int, name: str) -> None:
        """Reserve a record in the table for each engine. The record of an engine that has ended is used again."""
        with self._lock:
            missing = len(self._engines) - self._reserved
        for _ in range(missing):
            self._table.reserve(pid, name)
            self._reserved += 1

    def _read(self, channel: Channel) -> None:
        try:
            while True:
                while not channel.wait(POLL_S):
                    self._kill_if_stuck()
                match channel.receive():
                    case FromEngine(number, events, has_parked):
                        self._publish(number, events, has_parked=has_parked)
                    case AskTemplate() as question:
                        self._renderer.render(question, self._outbox.put)
                    case LogLine(name, level, text):
                        logging.getLogger(name).log(level, "%s", text)
        except ChannelClosed:
            return

    def _kill_if_stuck(self) -> None:
        """Kill the process if one of its engines hangs in llama.cpp."""
        with self._lock:
            engines = list(self._engines.values())
        for engine in engines:
            if (reason := engine.hang_reason()) is not None:
                logger.error("%s: %s: its process is killed", engine.settings.name, reason)
                self.kill(reason)

    def _publish(self, number: int, events: Sequence[Event], *, has_parked: bool) -> None:
        engine = self._engines[number]
        engine.records.update(events)
        engine.unanswered_since = None
        match last := events[-1]:
            case Loaded(profile):
                engine.identity = profile.identity
                engine.publish([*events[:-1], Loaded(replace(profile, is_isolated=True))])
            case Stopped() if has_parked:
                weights = RemoteWeights(self, number)
                self._remove(engine, [*events[:-1], replace(last, parked=weights)], has_parked=True)
            case LoadFailed() | Stopped() | Died():
                self._remove(engine, events, has_parked=has_parked)
            case _:
                engine.publish(events)

    def _remove(self, engine: RemoteEngineState, last_events: Sequence[Event], *, has_parked: bool) -> None:
        """Remove an engine that has ended, and let the process end if nothing else is in it."""
        with self._lock:
            del self._engines[engine.number]
            if has_parked:
                self._parked[engine.number] = engine
            ends = not self._engines and not self._parked
            if ends:
                self._publish_last_events = lambda: engine.finish(last_events)
                self._begin_end()
        if not ends:
            engine.finish(last_events)

    def _wait(self, process: SpawnedProcess) -> bool:
        if process.wait(_END_S):
            return True
        logger.error("A process of engines does not end: it is killed")
        process.kill()
        return process.wait(_END_S)

    def _publish_end(self, reason: str, active: AbstractSet[int]) -> None:
        """Publish the loss of the engines and parked weights that were still in the process when it ended.

        active: requests that it was computing or tokenising.
        """
        with self._lock:
            self._is_ending = True
            engines, self._engines = self._engines, {}
            parked, self._parked = self._parked, {}
        self._is_over.set()
        self._publish_last_events()
        for engine in engines.values():
            engine.die(reason, active)
        for engine in parked.values():
            engine.publish([ParkedWeightsLost(reason)])

    def _fail_loads(self, reason: str) -> None:
        with self._lock:
            self._is_ending = True
            engines, self._engines = self._engines, {}
        self._is_over.set()
        for engine in engines.values():
            engine.finish([LoadFailed(reason)])


class RemoteWeights:
    """Weights that are parked in a process, until they are released."""

    def __init__(self, process: EngineProcess, engine: int) -> None:
        self._process, self._engine = process, engine

    def release(self) -> None:
        """Release them; called once. See ``EngineProcess.release``."""
        self._process.release(self._engine)


def _end_of(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, 2) - _MAX_LOG_BYTES))
    return log.read().decode("utf-8", "replace")
