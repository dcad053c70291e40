"""Engines in processes of their own: a fault in one ends its model's process, and nothing else.

The engines are those that also run on threads; their messages and events cross a socket. Models on the same files share
a process, and so the weights. When a process dies, its requests leave it as if they had been suspended, with the tokens
that they have and without KV state, so that they can continue when the model is started again.
"""

from __future__ import annotations

import threading
from pathlib import Path

from modelyard.engine.chat.template_processes import RendersTemplates
from modelyard.engine.hosts.engine_process import EngineProcess
from modelyard.engine.hosts.journal import Journal
from modelyard.engine.hosts.remote_engine_state import RemoteEngineState
from modelyard.engine.hosts.remote_templates import TemplateRenderer
from modelyard.engine.hosts.spawner import EngineSpawner
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Publish
from modelyard.protocol.messages import Message
from modelyard.protocol.placement import Placement
from modelyard.system.file_stamp import FileStamp


class EngineProcesses:
    """The processes in which the engines of one owner run. Every method may be called on any thread.

    Args:
        journal: holds the table of the owner's engines.
        templates: renders their chat templates.
    """

    def __init__(self, journal: Journal, templates: RendersTemplates) -> None:
        self._table = journal.table
        self._spawner = EngineSpawner(journal.path)
        self._renderer = TemplateRenderer(templates)
        self._lock = threading.Lock()
        self._processes: dict[tuple[tuple[Path, ...], tuple[FileStamp, ...], Placement], EngineProcess] = {}
        self._engines = 0

    def prepare(self) -> None:
        """Start the program that starts processes, so that the first engine need not wait; returns at once."""
        self._spawner.prepare()

    def engine(self, settings: EngineSettings, publish: Publish) -> ProcessEngine:
        """Return an engine that is not yet started. ``publish`` is called on a thread of its process."""
        with self._lock:
            self._engines += 1
            return ProcessEngine(self, RemoteEngineState(self._engines, settings, publish))

    def end(self, pid: int, reason: str) -> None:
        """Kill the process ``pid``, in which an engine hangs; its engines die of ``reason``."""
        with self._lock:
            process = next((process for process in self._processes.values() if process.pid == pid), None)
        if process is not None:
            process.kill(reason)

    def close(self) -> None:
        """End the program that starts processes. All engines must have ended."""
        self._spawner.close()
        self._renderer.close()

    def start(self, engine: RemoteEngineState) -> EngineProcess:
        """Start an engine, in the process of the engines on the same files at the same place if there is one."""
        settings = engine.settings
        # Stamps keep replaced files apart from the old ones: they have other weights, and engines on the old files end
        # if those are written over.
        stamps = tuple(stamp for stamp in settings.files if stamp.path in settings.paths)
        # Elsewhere the same files are other weights, and a device that fails is to end no engine on another one.
        key = tuple(path.resolve() for path in settings.paths), stamps, settings.placement.of_weights
        with self._lock:
            process = self._processes.get(key)
            if process is None or not process.add(engine):
                process = self._processes[key] = EngineProcess(self._spawner, self._table, self._renderer)
                process.add(engine)
                process.start()
            return process


class ProcessEngine:
    """One engine in another process, with the interface of ``modelyard.engine.engine.Engine``."""

    def __init__(self, processes: EngineProcesses, engine: RemoteEngineState) -> None:
        self._processes, self._state = processes, engine
        self._process: EngineProcess | None = None
        self._early: list[Message] = []

    def start(self) -> None:
        """Start to load the model."""
        self._process = self._processes.start(self._state)
        for message in self._early:
            self._process.send(self._state, message)
        self._early.clear()

    def send(self, message: Message) -> None:
        """Send a message to the engine, without blocking. The engine reads messages in order, before its next step."""
        if self._process is None:
            self._early.append(message)
        else:
            self._process.send(self._state, message)

    def join(self, timeout_s: float) -> bool:
        """Wait until the engine has ended; return whether it has."""
        return self._state.is_over.wait(timeout_s)
