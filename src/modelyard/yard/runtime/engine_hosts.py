"""Where the engines of one yard run: on threads of this process, or in processes of their own.

A model that took a process down before gets one of its own (``isolation``). What all engines do is in a journal, which
outlives this process: the next one finds there what it died of.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from modelyard.config.paths import user_cache
from modelyard.config.schema import Isolation
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.engine import Engine
from modelyard.engine.hosts.journal import Journal, leftover_journals, open_journal
from modelyard.engine.hosts.process import EngineProcesses
from modelyard.engine.messages import Died, Event, Loaded, Stopped
from modelyard.engine.settings import EngineSettings
from modelyard.engine.sharing import Device
from modelyard.engine.weights import WeightsPool
from modelyard.engine.weights_digest import contents_digest
from modelyard.yard.engines import EngineHandle, Publish
from modelyard.yard.runtime.isolation import Host, IsolationRecords, is_isolated

logger = logging.getLogger(__name__)

# Where engines run of models that nothing is known against: measured in docs/performance.md.
AUTO_HOST: Final[Host] = "thread"


class EngineHosts:
    """Makes the engines of one yard. May be used on any thread.

    Args:
        folder: of the journal and of the records; None: in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or user_cache() / "modelyard"
        self._records = IsolationRecords(folder / "isolation")
        now = time.time()
        leftover_journals(folder / "journal", lambda activity: self._records.note_suspects([activity], now))
        self._journal = _journal(folder / "journal")
        self._pool, self._device, self._templates = WeightsPool(), Device(self._journal.table), TemplateProcesses()
        self._processes = EngineProcesses(self._journal, self._templates)

    def isolates(self, paths: Sequence[Path], isolation: Isolation) -> bool:
        """Whether the engine of a model gets a process of its own.

        Raises:
            OSError: a file of it cannot be read.
        """
        record = self._records.find(contents_digest(paths)) if isolation == "auto" else None
        return is_isolated(isolation, record, time.time(), AUTO_HOST)

    def engine(self, settings: EngineSettings, publish: Publish, *, is_isolated: bool) -> EngineHandle:
        """An engine, not yet started."""
        observed = _Observed(settings, publish, self._records, is_isolated=is_isolated)
        if is_isolated:
            return self._processes.engine(settings, observed.publish)
        return Engine(settings, observed.publish, self._pool, self._device, self._templates)

    def close(self) -> None:
        """End all processes, and the journal. The engines are gone by then."""
        self._processes.close()
        self._templates.close()
        self._journal.close()


class _Observed:
    """Remembers of an engine in a process how it died, and of any how long it served well."""

    def __init__(
        self, settings: EngineSettings, publish: Publish, records: IsolationRecords, *, is_isolated: bool
    ) -> None:
        self._settings, self._publish, self._records = settings, publish, records
        self._is_isolated = is_isolated
        self._loaded_at: float | None = None

    def publish(self, events: Sequence[Event]) -> None:
        """Pass events on. Hot path: called once a step."""
        match events[-1]:
            case Loaded():
                self._loaded_at = time.monotonic()
            case Died(reason) if self._is_isolated:
                self._note(lambda digest: self._records.note_death(digest, self._settings.name, reason, time.time()))
            case Stopped() if self._loaded_at is not None:
                served_s = time.monotonic() - self._loaded_at
                self._note(lambda digest: self._records.note_served(digest, served_s))
        self._publish(events)

    def _note(self, note: Callable[[str], None]) -> None:
        try:
            note(contents_digest(self._settings.paths))
        except OSError as error:
            logger.warning("%s: its files cannot be read any more: %s", self._settings.name, error)


def _journal(folder: Path) -> Journal:
    try:
        return open_journal(folder)
    except OSError as error:
        logger.warning("%s cannot hold the journal of engines, which a restart would read: %s", folder, error)
        return open_journal(Path(tempfile.mkdtemp(prefix="modelyard-")))
