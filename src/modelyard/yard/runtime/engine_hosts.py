"""Where the engines of one yard run: on threads of this process, or in processes of their own.

A model that ended a process before gets one of its own (``isolation``). The activity of all engines is in a journal,
which outlives this process: the next server reads there which models were active when it died.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelyard.config.names import Isolation
from modelyard.config.paths import user_cache
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.hosts.device_list import may_have_accelerators
from modelyard.engine.hosts.journal import Journal, leftover_journals, open_journal
from modelyard.engine.hosts.stalls import StallBounds
from modelyard.engine.hosts.step_watch import StepWatch
from modelyard.engine.scheduling.engine_table import EngineActivity, EngineTable
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import (
    Died,
    Dying,
    Event,
    FileWrittenOver,
    Loaded,
    LoadFailed,
    LoadProgress,
    ParkedWeightsLost,
    Publish,
    Stopped,
)
from modelyard.system.file_digest import contents_digest
from modelyard.yard.runtime.file_watch import FileWatch, WatchedFiles, WatchedWeights
from modelyard.yard.runtime.interfaces import EngineHandle
from modelyard.yard.runtime.isolation import Host, IsolationRecords, is_isolated

if TYPE_CHECKING:
    from modelyard.engine.hosts.process_engine import EngineProcesses

logger = logging.getLogger(__name__)


_STALL_BOUNDS: Final = StallBounds()


class EngineHosts:
    """Makes the engines of one yard. May be used on any thread.

    Making it takes as long as importing llama.cpp, which the program that engines' processes are forked from can do
    meanwhile.

    Args:
        auto_host: where engines run whose models have no record of deaths, unless the configuration says.
        folder: of the journal and of the records; None: in the user's cache.
        stall_bounds: how long a step may take before its engine counts as hanging.
        expects_processes: whether an engine will most likely get a process of its own, unless there are accelerators.
    """

    def __init__(
        self,
        auto_host: Host = "thread",
        folder: Path | None = None,
        stall_bounds: StallBounds = _STALL_BOUNDS,
        *,
        expects_processes: bool = False,
    ) -> None:
        self._auto_host = auto_host
        folder = folder or user_cache() / "modelyard"
        self._records = IsolationRecords(folder / "isolation")
        now = time.time()
        leftover_journals(folder / "journal", lambda activity: self._records.note_suspects([activity], now))
        self._journal = _journal(folder / "journal")
        table = EngineTable() if self._journal is None else self._journal.table
        self._device, self._templates = Device(table), TemplateProcesses()
        self._watch = FileWatch()
        self._steps = StepWatch(table, self._on_stall, stall_bounds)
        self._processes: EngineProcesses | None = None
        self._making_processes = threading.Lock()
        if expects_processes and sys.platform != "win32" and not may_have_accelerators():
            self.prepare_process()
        try:
            self._import_engines()
        except BaseException:
            self.close()
            raise

    def _import_engines(self) -> None:
        from modelyard.engine.engine import Engine
        from modelyard.engine.llama import can_offload, missing_backends
        from modelyard.engine.loading.weights import WeightsPool

        self._make_engine, self._can_offload, self._pool = Engine, can_offload, WeightsPool()
        for backend in missing_backends():
            logger.warning("%s", backend)

    @property
    def are_computing(self) -> bool:
        """Whether any engine has something to compute."""
        return self._device.is_busy

    def isolates(
        self,
        paths: Sequence[Path],
        isolation: Isolation,
        *,
        is_tried: bool,
        offloads: bool,
        may_be_remote: bool = False,
    ) -> bool:
        """Whether the engine of a model gets a process of its own.

        Args:
            paths: its files.
            isolation: as the model is configured.
            is_tried: whether its files are tried before they are served.
            offloads: whether it uses accelerators where there are any.
            may_be_remote: whether it may be on a device of another machine.

        Raises:
            OSError: one of its files cannot be read.
        """
        if sys.platform == "win32":
            return False
        record = self._records.find(contents_digest(paths)) if isolation == "auto" else None
        default = self._auto_host
        if not is_tried or may_be_remote:
            # llama.cpp ends its process when a device of another machine is gone.
            default = "process"
        elif offloads and self._can_offload():
            # Each process takes hundreds of megabytes of an accelerator for its own context.
            default = "thread"
        return is_isolated(isolation, record, time.time(), default)

    def prepare_process(self) -> None:
        """Start the process from which those of engines are forked, so that the first engine does not wait for it.

        It returns at once.
        """
        self._engine_processes().prepare()

    def engine(self, settings: EngineSettings, publish: Publish, *, is_isolated: bool) -> EngineHandle:
        """Return an engine, not yet started."""
        observed = _ObservedEngine(settings, publish, self._records, self._watch, is_isolated=is_isolated)
        self._steps.start()
        if is_isolated:
            return self._engine_processes().engine(settings, observed.publish)
        return self._make_engine(settings, observed.publish, self._pool, self._device, self._templates)

    def close(self) -> None:
        """End all processes, and close the journal. All engines must have ended."""
        self._steps.close()
        if self._processes is not None:
            self._processes.close()
        self._templates.close()
        self._watch.close()
        if self._journal is not None:
            self._journal.close()

    def _on_stall(self, activity: EngineActivity, reason: str) -> None:
        """Kill the process of an engine that hangs. An engine on a thread cannot be ended without the whole server."""
        if activity.pid == os.getpid():
            logger.error("%s: its engine hangs: %s. It runs on a thread, which goes on", activity.name, reason)
            return
        logger.error("%s: its engine hangs: %s. Its process is killed", activity.name, reason)
        self._engine_processes().end(activity.pid, reason)

    def _engine_processes(self) -> EngineProcesses:
        # Imported here: Windows has no sockets that carry descriptors.
        from modelyard.engine.hosts.process_engine import EngineProcesses

        with self._making_processes:
            if self._processes is None:
                assert self._journal is not None, "there are no processes on Windows"
                self._processes = EngineProcesses(self._journal, self._templates)
            return self._processes


# Events of an engine's lifecycle, which the observer below acts on.
_LIFECYCLE_EVENTS: Final = frozenset({LoadProgress, Loaded, LoadFailed, Dying, Died, Stopped, ParkedWeightsLost})


class _ObservedEngine:
    """Observes the events of an engine: records deaths of isolated engines and times of service, and watches files."""

    def __init__(
        self,
        settings: EngineSettings,
        publish: Publish,
        records: IsolationRecords,
        watch: FileWatch,
        *,
        is_isolated: bool,
    ) -> None:
        self._settings, self._publish, self._records = settings, publish, records
        self._is_isolated = is_isolated
        self._loaded_at: float | None = None
        self._was_written_over = False
        self._watch = watch
        self._watched: WatchedFiles | None = None

    def files(self) -> WatchedFiles:
        """Return the watch of its files, which begins with its first event: an engine may never be started.

        It opens the files, so it is called on a thread of the engine.
        """
        if self._watched is None:
            self._watched = self._watch.add(self._settings.files, self._on_file_changed)
        return self._watched

    def publish(self, events: Sequence[Event]) -> None:
        """Pass events on. Hot path: called once a step."""
        if type(events[-1]) not in _LIFECYCLE_EVENTS:
            self._publish(events)
            return
        match events[-1]:
            case LoadProgress():
                self.files()
            case Loaded():
                self.files()
                self._loaded_at = time.monotonic()
            case Dying() | Died():
                # Before the death is published: the engine may have died of a changed file, and then no request is
                # blamed for it, and none goes on.
                self.files().check()
        match events[-1]:
            case Died(reason) if self._is_isolated and not self._was_written_over:
                # Before the death is published, because that starts another engine, which depends on the record.
                self._note(lambda digest: self._records.note_death(digest, self._settings.name, reason, time.time()))
        self._publish(self._watching_parked(events))
        if isinstance(events[-1], Stopped) and self._loaded_at is not None:
            served_s = time.monotonic() - self._loaded_at
            self._note(lambda digest: self._records.note_served(digest, served_s))

    def _watching_parked(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events; the files of weights that the last one parks are watched until they are released."""
        match events[-1]:
            case Stopped(parked=parked) as stopped if parked is not None:
                return [*events[:-1], replace(stopped, parked=WatchedWeights(parked, self.files()))]
            case Stopped() | LoadFailed() | Died() | ParkedWeightsLost():
                self.files().end()
        return events

    def _on_file_changed(self, name: str) -> None:
        """Publish that a file was written over. Called on any thread, once."""
        self._was_written_over = True
        self._publish([FileWrittenOver(name)])

    def _note(self, note: Callable[[str], None]) -> None:
        try:
            note(contents_digest(self._settings.paths))
        except OSError as error:
            logger.warning("%s: its files cannot be read any more: %s", self._settings.name, error)


def _journal(folder: Path) -> Journal | None:
    """Return a journal in ``folder``, else in a temporary folder, which a restart does not read; None on Windows."""
    if sys.platform == "win32":
        return None
    try:
        return open_journal(folder)
    except OSError as error:
        logger.warning("%s cannot hold the journal of engines, which a restart would read: %s", folder, error)
        return open_journal(Path(tempfile.mkdtemp(prefix="modelyard-")))
