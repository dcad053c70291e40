"""Engines in processes of their own: a fault in one ends its model's process, and nothing else.

The engines are the same as on threads; what is sent to them and what they publish crosses a socket. Models on the same
files share a process, and so the weights. When a process dies, its requests leave it as if they had been suspended,
with the tokens that they have and without KV state: whoever starts the model again has them go on.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Final

from modelyard.engine.chat.template_processes import RendersTemplates
from modelyard.engine.hosts.channel import Channel, ChannelClosed
from modelyard.engine.hosts.codec import ForeignValue
from modelyard.engine.hosts.journal import Journal
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
from modelyard.engine.hosts.records import RequestRecords
from modelyard.engine.hosts.remote_templates import TemplateRenderer
from modelyard.engine.hosts.spawner import EngineSpawner, SpawnedProcess, SpawnFailed
from modelyard.engine.scheduling.engine_table import EngineTable
from modelyard.engine.settings import EngineSettings
from modelyard.errors import EngineError, InvalidRequest
from modelyard.protocol.events import (
    Died,
    Dying,
    Event,
    Failed,
    Loaded,
    LoadFailed,
    ParkedWeightsLost,
    Publish,
    Stopped,
)
from modelyard.protocol.messages import Message, Request
from modelyard.protocol.requests import Cancel, Stop
from modelyard.system.file_stamp import FileStamp

logger = logging.getLogger(__name__)


# Of a process that has closed its connection: the kernel gives back what it had, also where that is many gigabytes.
_END_S: Final = 30.0
_KEPT_OF_LOG: Final = 4000

# An engine hears what it is told before its next step. No step takes as long, on any machine that is of use.
MAX_SILENT_S: Final = 300.0
_LOOK_S: Final = 5.0


class EngineProcesses:
    """The processes in which the engines of one owner run. Every method may be called on any thread.

    Args:
        journal: of the owner's engines.
        templates: where their chat templates are rendered.
    """

    def __init__(self, journal: Journal, templates: RendersTemplates) -> None:
        self._table = journal.table
        self._spawner = EngineSpawner(journal.path)
        self._renderer = TemplateRenderer(templates)
        self._lock = threading.Lock()
        self._processes: dict[tuple[Path | FileStamp, ...], _EngineProcess] = {}
        self._engines = 0

    def prepare(self) -> None:
        """Begin to start the program that starts processes, so that the first engine does not wait for it."""
        self._spawner.prepare()

    def engine(self, settings: EngineSettings, publish: Publish) -> ProcessEngine:
        """An engine, not yet started. Its events arrive through ``publish``, on a thread of its process."""
        with self._lock:
            self._engines += 1
            return ProcessEngine(self, _Hosted(self._engines, settings, publish))

    def end(self, pid: int, reason: str) -> None:
        """End the process ``pid``, in which an engine hangs; its engines die of ``reason``."""
        with self._lock:
            process = next((process for process in self._processes.values() if process.pid == pid), None)
        if process is not None:
            process.end(reason)

    def close(self) -> None:
        """End the program that starts processes. All engines are gone by then."""
        self._spawner.close()
        self._renderer.close()

    def start(self, hosted: _Hosted) -> _EngineProcess:
        """Start an engine, in the process of those on the same files if there is one."""
        settings = hosted.settings
        # Files that were replaced share neither weights with the old ones, nor their end if those are written over.
        stamps = tuple(stamp for stamp in settings.files if stamp.path in settings.paths)
        key: tuple[Path | FileStamp, ...] = (*(path.resolve() for path in settings.paths), *stamps)
        with self._lock:
            process = self._processes.get(key)
            if process is None or not process.take(hosted):
                process = self._processes[key] = _EngineProcess(self._spawner, self._table, self._renderer)
                process.take(hosted)
                process.start()
            return process


class ProcessEngine:
    """One engine in a process; the same as ``modelyard.engine.engine.Engine`` to whoever has it."""

    def __init__(self, processes: EngineProcesses, hosted: _Hosted) -> None:
        self._processes, self._hosted = processes, hosted
        self._process: _EngineProcess | None = None
        self._early: list[Message] = []

    def start(self) -> None:
        """Begin to load."""
        self._process = self._processes.start(self._hosted)
        for message in self._early:
            self._process.send(self._hosted, message)
        self._early.clear()

    def send(self, message: Message) -> None:
        """Hand a message to the engine; never blocks. Messages are taken in order, before the next step."""
        if self._process is None:
            self._early.append(message)
        else:
            self._process.send(self._hosted, message)

    def join(self, timeout_s: float) -> bool:
        """Wait until the engine is gone; whether it is."""
        return self._hosted.is_over.wait(timeout_s)


class RemoteWeights:
    """Weights that are parked in a process, until they are released."""

    def __init__(self, process: _EngineProcess, engine: int) -> None:
        self._process, self._engine = process, engine

    def release(self) -> None:
        """Give them up, once; where nothing else is in the process, wait for its end, which frees them."""
        self._process.release(self._engine)


@dataclass(slots=True, eq=False)
class _Hosted:
    """An engine in a process, as the server knows it.

    Attributes:
        identity: None until it has loaded.
        is_over: set before its last event is published.
        asked_at: when it was told to end something, of which it has not said anything since; None: it was not.
    """

    number: int
    settings: EngineSettings
    publish: Publish
    records: RequestRecords = field(default_factory=RequestRecords)
    identity: str | None = None
    is_over: threading.Event = field(default_factory=threading.Event)
    asked_at: float | None = None


class _EngineProcess:
    """One process, from before its start until after its end.

    Attributes:
        pid: its number; None before it is started.
    """

    def __init__(self, spawner: EngineSpawner, table: EngineTable, renderer: TemplateRenderer) -> None:
        self.pid: int | None = None
        self._spawner, self._table, self._renderer = spawner, table, renderer
        self._spawned: SpawnedProcess | None = None
        # Why it was killed, where it was.
        self._verdict = ""
        # In the table, for engines of this process.
        self._reserved = 0
        self._lock = threading.Lock()
        self._engines: dict[int, _Hosted] = {}
        self._parked: dict[int, _Hosted] = {}
        # No engine is started in it any more.
        self._is_ending = False
        self._is_over = threading.Event()
        # None: nothing follows.
        self._outbox: SimpleQueue[ToProcess | None] = SimpleQueue()
        # The last events of its last engine: published when the process has ended, and its memory is free.
        self._farewell: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Have it started, by the thread that listens to it."""
        threading.Thread(target=self._run, name="engine process", daemon=True).start()

    def take(self, hosted: _Hosted) -> bool:
        """Start an engine in it; False where it is about to end."""
        with self._lock:
            if self._is_ending:
                return False
            self._engines[hosted.number] = hosted
            self._outbox.put(StartEngine(hosted.number, hosted.settings))
            return True

    def send(self, hosted: _Hosted, message: Message) -> None:
        """Send a message to one of its engines. One that is gone does not hear it."""
        hosted.records.sent(message)
        if isinstance(message, Cancel | Stop) and hosted.asked_at is None:
            hosted.asked_at = time.monotonic()
        self._outbox.put(ToEngine(hosted.number, message))

    def release(self, engine: int) -> None:
        """Give up the weights that an engine has parked."""
        with self._lock:
            if self._parked.pop(engine, None) is None:
                return
            if self._engines or self._parked:
                self._outbox.put(ReleaseWeights(engine))
                return
            self._end()
        self._is_over.wait(_END_S)

    def end(self, reason: str) -> None:
        """Kill it, because an engine in it hangs: its engines die of ``reason``."""
        process = self._spawned
        if process is not None and not self._is_over.is_set():
            self._verdict = reason
            process.kill()

    def _end(self) -> None:
        """Nothing is left in it. The lock is held."""
        self._is_ending = True
        self._outbox.put(None)

    def _run(self) -> None:
        """Start it, listen to it to its end, and say how it ended."""
        with ExitStack() as stack:
            try:
                log = stack.enter_context(tempfile.TemporaryFile())
                channel, theirs = Channel.pair()
                stack.callback(channel.close)
                with theirs:
                    process = self._spawner.spawn(theirs, log.fileno())
            except (OSError, SpawnFailed) as failed:
                self._fail(f"Its process cannot be started: {failed}")
                return
            self.pid, self._spawned = process.pid, process
            writer = threading.Thread(
                target=self._write, args=(channel, process.pid), name="to engine process", daemon=True
            )
            writer.start()
            try:
                self._listen(channel)
            except Exception:
                # The edge of the thread: without its last events, the callers of its models would wait for ever.
                logger.exception("A process of engines is killed: what it says cannot be understood")
                process.kill()
            ended = self._wait(process)
            self._outbox.put(None)
            channel.close_sending()
            writer.join(_END_S)
            reason = self._verdict or how_it_ended(process.status if ended else None, _end_of(log))
            process.forget()
        activities = self._table.release_of(process.pid)
        self._over(reason, {number for each in activities for number in (*each.computing, *each.reading)})

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
            # It is gone: whoever listens to it says so.
            return
        except (OSError, EngineError) as error:
            # There is no memory for a KV state, or no place in the table.
            logger.error("A process of engines is ended: %s", error)
        channel.close_sending()

    def _refuse(self, message: ToProcess, reason: str) -> None:
        """Fail the request that a message brings and that cannot be written down; others bring none."""
        hosted = self._engines.get(message.engine) if isinstance(message, ToEngine) else None
        request = message.message if isinstance(message, ToEngine) else None
        if hosted is None or not isinstance(request, Request):
            logger.error("%s cannot be sent to a process of engines: %s", type(message).__name__, reason)
            return
        failed = Failed(
            request.sequence, InvalidRequest(f"The request cannot be handed to its model's process: {reason}.")
        )
        hosted.records.note([failed])
        hosted.publish([failed])

    def _reserve(self, pid: int, name: str) -> None:
        """Have a record in the table for each engine. One that has ended leaves its record to the next."""
        with self._lock:
            missing = len(self._engines) - self._reserved
        for _ in range(missing):
            self._table.reserve(pid, name)
            self._reserved += 1

    def _listen(self, channel: Channel) -> None:
        try:
            while True:
                while not channel.wait(_LOOK_S):
                    self._kill_if_stuck()
                match channel.receive():
                    case FromEngine(number, events, has_parked):
                        self._hear(number, events, has_parked=has_parked)
                    case AskTemplate() as asked:
                        self._renderer.render(asked, self._outbox.put)
                    case LogLine(name, level, text):
                        logging.getLogger(name).log(level, "%s", text)
        except ChannelClosed:
            return

    def _kill_if_stuck(self) -> None:
        """End a process in which an engine does not come back from llama.cpp."""
        with self._lock:
            asked = [hosted for hosted in self._engines.values() if hosted.asked_at is not None]
        for hosted in asked:
            if hosted.asked_at is not None and time.monotonic() > hosted.asked_at + MAX_SILENT_S:
                reason = f"it has said nothing for {MAX_SILENT_S:.0f} s since it was told to end something"
                logger.error("%s: %s: its process is killed", hosted.settings.name, reason)
                self.end(reason)

    def _hear(self, number: int, events: Sequence[Event], *, has_parked: bool) -> None:
        hosted = self._engines[number]
        hosted.records.note(events)
        hosted.asked_at = None
        match last := events[-1]:
            case Loaded(profile):
                hosted.identity = profile.identity
                hosted.publish([*events[:-1], Loaded(replace(profile, is_isolated=True))])
                return
            case Stopped() if has_parked:
                last = replace(last, parked=RemoteWeights(self, number))
            case LoadFailed() | Stopped() | Died():
                pass
            case _:
                hosted.publish(events)
                return
        said = [*events[:-1], last]
        with self._lock:
            del self._engines[number]
            if has_parked:
                self._parked[number] = hosted
            ends = not self._engines and not self._parked
            if ends:
                self._farewell = lambda: _say_goodbye(hosted, said)
                self._end()
        if not ends:
            _say_goodbye(hosted, said)

    def _wait(self, process: SpawnedProcess) -> bool:
        if process.wait(_END_S):
            return True
        logger.error("A process of engines does not end: it is killed")
        process.kill()
        return process.wait(_END_S)

    def _over(self, reason: str, active: AbstractSet[int]) -> None:
        """The process has ended: whatever was in it is gone.

        active: requests that were being computed or read.
        """
        with self._lock:
            self._is_ending = True
            engines, self._engines = self._engines, {}
            parked, self._parked = self._parked, {}
        self._is_over.set()
        self._farewell()
        for hosted in engines.values():
            _say_goodbye(hosted, _death(hosted, reason, active))
        for hosted in parked.values():
            hosted.publish([ParkedWeightsLost(reason)])

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._is_ending = True
            engines, self._engines = self._engines, {}
        self._is_over.set()
        for hosted in engines.values():
            _say_goodbye(hosted, [LoadFailed(reason)])


def _death(hosted: _Hosted, reason: str, active: AbstractSet[int]) -> list[Event]:
    """What is said of an engine whose process has died."""
    left = hosted.records.leave(hosted.identity or "")
    if hosted.identity is None:
        return [*left, Died(reason)]
    mine = tuple(event.sequence for event in left if event.sequence in active)
    return [Dying(reason, mine), *left, Died(reason)]


def _say_goodbye(hosted: _Hosted, events: Sequence[Event]) -> None:
    hosted.is_over.set()
    hosted.publish(events)


def _end_of(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, 2) - _KEPT_OF_LOG))
    return log.read().decode("utf-8", "replace")
