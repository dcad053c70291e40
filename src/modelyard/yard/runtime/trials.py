"""Tries each model once before it is served, and keeps the outcome.

The outcome of a trial depends on the files, on llama.cpp, and on the settings that choose how it computes. Outcomes are
kept on disk, so that a model is tried once and not at every start of the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelyard.config.paths import make_own_folder, own_cache
from modelyard.engine.hosts.trial import TrialFailed, run_trial
from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.errors import UnusableModel
from modelyard.hub.sources.llama_converter import engine_build, engine_version
from modelyard.protocol.placement import ANYWHERE, Placement
from modelyard.system.file_digest import contents_digest
from modelyard.system.private_files import read_private, write_private

logger = logging.getLogger(__name__)

# Version of what a trial computes: after a change all models are tried again.
_RECIPE: Final = 2
# Each trial takes the cores and the disk for a while; one that never ends takes them until its time limit.
MAX_CONCURRENT_TRIALS: Final = 4

RunTrial = Callable[[TrialTask, Callable[[str], bool]], None]


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """The outcome of a trial.

    Attributes:
        failure: why the model cannot be served; None where it can.
    """

    failure: str | None


class TrialRecords:
    """Outcomes of trials, one small file each in ``folder``. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> TrialOutcome | None:
        """Return the outcome that was noted under ``key``; None where there is none that can be read."""
        try:
            failure = json.loads(read_private(self._folder / f"{key}.json"))["failure"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return TrialOutcome(failure) if failure is None or isinstance(failure, str) else None

    def note(self, key: str, outcome: TrialOutcome, name: str) -> None:
        """Keep an outcome; ``name`` is the id of the model, for readers of the file.

        Where it cannot be written, the model is tried again at the next start.
        """
        noted = json.dumps({"model": name, "failure": outcome.failure})
        try:
            make_own_folder(self._folder)
            write_private(self._folder / f"{key}.json", noted.encode())
        except OSError as error:
            logger.warning("The trial of %s cannot be remembered: %s", name, error)


class Trials:
    """Tries models for one yard. Use it on one event loop.

    Args:
        folder: where outcomes are kept; None: the user's cache.
        run: runs a trial.
    """

    def __init__(self, folder: Path | None = None, run: RunTrial = run_trial) -> None:
        self._records = TrialRecords(folder or own_cache() / "trials")
        self._run = run
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_TRIALS)
        # Keyed by the status of the files: reading their contents takes longer than waking a parked model.
        self._outcomes: dict[_TrialState, TrialOutcome] = {}
        self._locks: dict[_TrialState, asyncio.Lock] = {}

    async def is_known(self, task: TrialTask) -> bool:
        """Whether the model was tried before.

        Raises:
            UnusableModel: its files cannot be read.
        """
        return await self._find(task, await asyncio.to_thread(_trial_state, task)) is not None

    async def check(self, task: TrialTask, report: Callable[[str], None]) -> None:
        """Try a model, unless that was done before. Cancelling it ends the trial.

        Args:
            task: what is tried.
            report: called on the event loop with the step that the trial has come to.

        Raises:
            UnusableModel: it cannot be served.
        """
        state = await asyncio.to_thread(_trial_state, task)
        # Models on the same files wait for one trial.
        async with self._locks.setdefault(state, asyncio.Lock()):
            outcome = await self._find(task, state)
            if outcome is None:
                async with self._slots:
                    key = await asyncio.to_thread(trial_key, task)
                    outcome = await self._try(task, report)
                if await asyncio.to_thread(_trial_state, task) != state:
                    raise UnusableModel("Its file was changed while it was tried. Try again when it is complete.")
                self._outcomes[state] = outcome
                await asyncio.to_thread(self._records.note, key, outcome, task.settings.name)
        if outcome.failure is not None:
            raise UnusableModel(outcome.failure)

    async def _find(self, task: TrialTask, state: _TrialState) -> TrialOutcome | None:
        if (known := self._outcomes.get(state)) is not None:
            return known
        outcome = await asyncio.to_thread(lambda: self._records.find(trial_key(task)))
        if outcome is not None:
            self._outcomes[state] = outcome
        return outcome

    async def _try(self, task: TrialTask, report: Callable[[str], None]) -> TrialOutcome:
        loop, is_over = asyncio.get_running_loop(), threading.Event()

        def report_step(step: str) -> None:
            # Checked on the event loop, so that no step is reported after the end of the trial.
            if not is_over.is_set():
                report(step)

        def goes_on(step: str) -> bool:
            loop.call_soon_threadsafe(report_step, step)
            return not is_over.is_set()

        try:
            await asyncio.to_thread(self._run, task, goes_on)
        except TrialFailed as failed:
            return TrialOutcome(str(failed))
        finally:
            is_over.set()
        return TrialOutcome(None)


_TrialState = tuple[TrialTask, tuple[tuple[int, int, int], ...]]


def _trial_state(task: TrialTask) -> _TrialState:
    """Return a trial, and inode, size and time of change of each of its files.

    Raises:
        UnusableModel: a file is missing.
    """
    with _readable():
        stats = [path.stat() for path in task.settings.paths]
    # llama.cpp depends on neither the name of a model nor its chat template.
    placement = tried_placement(task.settings.placement)
    settings = replace(task.settings, name="", chat_template=None, placement=placement, draft_placement=ANYWHERE)
    return replace(task, settings=settings, cores=None), tuple(
        (stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats
    )


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnusableModel(f"{Path(error.filename).name} cannot be read: {error.strerror}.") from error


def trial_key(task: TrialTask) -> str:
    """Return a digest of everything that the outcome of a trial depends on.

    Raises:
        UnusableModel: a file cannot be read.
    """
    settings = task.settings
    with _readable():
        files = [contents_digest(settings.paths), *(path.stat().st_mtime_ns for path in settings.paths)]
    facts = {
        "recipe": _RECIPE,
        "engine": [engine_version(), engine_build()],
        # The time of change stands for the middle of a file, which the digest leaves out.
        "files": files,
        "kind": settings.kind,
        "kv_type": settings.kv_type,
        "flash_attn": settings.flash_attn,
        "context_length": settings.context_length,
        "batch_tokens": settings.batch_tokens,
        "is_windowed": settings.is_windowed,
        "max_seqs": settings.max_seqs,
        "repacks": task.repacks,
        "placement": str(tried_placement(settings.placement)),
    }
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def tried_placement(placement: Placement) -> Placement:
    """Return what a trial depends on of a placement: the kinds of devices that compute, not how many layers each has.

    Otherwise a model would be tried again in each placement that it ever gets.
    """
    if not placement.devices:
        return placement
    kinds = sorted({name.rstrip("0123456789") for name in placement.devices})
    return replace(
        placement,
        devices=tuple(kinds),
        gpu_layers=None,
        split=(),
        main_device=0,
        cpu_moe_layers=min(1, placement.cpu_moe_layers),
    )
