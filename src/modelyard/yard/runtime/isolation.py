"""Which models get a process of their own: those that ended a server, until they have served for an hour.

The record of a model is keyed by the contents of its files, so it holds under any name that they are served under.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from modelyard.config.names import Isolation
from modelyard.config.paths import make_own_folder, own_cache
from modelyard.engine.scheduling.engine_table import Doing, EngineActivity
from modelyard.system.private_files import read_private, write_private

logger = logging.getLogger(__name__)

Host = Literal["thread", "process"]

# Seconds that a model has to serve without a death before it may share a process again.
PROBATION_S: Final = 3600.0
# Seconds after which a death no longer counts: the machine, its system and llama.cpp have probably changed.
MEMORY_S: Final = 30 * 86_400.0
MAX_DEATHS: Final = 20

# Version of the records on disk; those of another version are left unread.
_FORMAT: Final = 1

_REASONS: Final[dict[Doing, str]] = {
    "loading": "the program that served it ended abnormally while it was loaded",
    "computing": "the program that served it ended abnormally during an answer",
    "reading": "the program that served it ended abnormally while it read a prompt",
    "saving": "the program that served it ended abnormally while it saved prompts",
    "restoring": "the program that served it ended abnormally while it restored prompts",
    "resizing": "the program that served it ended abnormally while it gave its context another size",
}


@dataclass(frozen=True, slots=True)
class Death:
    """The death of a server, or of an engine's process.

    Attributes:
        at: its time, in seconds of the epoch.
        reason: what is known of it, as a sentence.
    """

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class IsolationRecord:
    """The deaths that a model was involved in.

    Attributes:
        deaths: the newest last.
        served_s: seconds that the model has served since the newest.
        model: its id when the record was written, for readers of the file.
    """

    deaths: tuple[Death, ...] = ()
    served_s: float = 0.0
    model: str = ""


def is_isolated(mode: Isolation, record: IsolationRecord | None, now: float, auto_default: Host) -> bool:
    """Whether a model's engine gets a process of its own. Pure.

    Args:
        mode: as the model is configured.
        record: of the model; None where there is none.
        now: in seconds of the epoch.
        auto_default: where engines run in ``auto`` whose models have no record of deaths.
    """
    if mode != "auto":
        return mode == "process"
    return auto_default == "process" or (record is not None and _is_suspect(record, now))


def _is_suspect(record: IsolationRecord, now: float) -> bool:
    return record.served_s < PROBATION_S and any(now - death.at < MEMORY_S for death in record.deaths)


class IsolationRecords:
    """Records of models, one small file each. Thread-safe; of two servers that write at once, the last one wins.

    A model is identified by the ``contents_digest`` of its files.

    Args:
        folder: of the records; None: in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or own_cache() / "isolation"
        self._lock = threading.Lock()

    def find(self, digest: str) -> IsolationRecord | None:
        """Return the record of a model; None where there is none that can be read."""
        try:
            fields = json.loads(read_private(self._folder / f"{digest}.json"))
            if fields["format"] != _FORMAT:
                return None
            deaths = tuple(Death(float(death["at"]), str(death["reason"])) for death in fields["deaths"])
            return IsolationRecord(deaths, float(fields["served_s"]), str(fields["model"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def note_death(self, digest: str, name: str, reason: str, now: float) -> None:
        """Record that a model ended a process, or may have.

        Args:
            digest: of the model's files.
            name: id of the model, for readers of the file.
            reason: what is known of the death, as a sentence.
            now: in seconds of the epoch.
        """
        with self._lock:
            known = self.find(digest) or IsolationRecord()
            deaths = (*known.deaths, Death(now, reason))[-MAX_DEATHS:]
            self._write(digest, IsolationRecord(deaths, model=name))

    def note_served(self, digest: str, seconds: float) -> None:
        """Record that a model has served for some more seconds. A model without deaths has no record."""
        with self._lock:
            known = self.find(digest)
            if known is not None:
                self._write(digest, replace(known, served_s=known.served_s + seconds))

    def note_suspects(self, activities: Iterable[EngineActivity], now: float) -> None:
        """Record a death of each model that was active when its server died.

        Args:
            activities: what the engines of a dead server were doing.
            now: in seconds of the epoch.
        """
        for activity in activities:
            if (reason := death_reason(activity)) is not None and activity.model_digest:
                logger.warning(
                    "%s: %s. It may be served in a process of its own now, apart from other models.",
                    activity.name,
                    reason,
                )
                self.note_death(activity.model_digest, activity.name, reason, now)

    def _write(self, digest: str, record: IsolationRecord) -> None:
        try:
            make_own_folder(self._folder)
            write_private(self._folder / f"{digest}.json", json.dumps({"format": _FORMAT, **asdict(record)}).encode())
        except OSError as error:
            logger.warning("What is known of the deaths of %s cannot be remembered: %s", record.model, error)


def death_reason(activity: EngineActivity) -> str | None:
    """Return how an engine may have ended its server with what it was doing; None where it was idle."""
    return _REASONS.get(activity.doing)
