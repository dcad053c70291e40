"""Downloads of models that requests have begun, and their progress for those who wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from modelyard.config import Model
from modelyard.yard.yard import Yard

_POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a download is.

    Attributes:
        step: what is done, in the present participle, such as "downloading".
        done_bytes, total_bytes: of the files that were not on this machine; a conversion counts its parts alone.
    """

    step: str
    done_bytes: int
    total_bytes: int


@dataclass
class Pull:
    """A download that runs, and how many wait for it; one that nobody waits for any more is given up.

    Its task is never cancelled: one that was cancelled before it began would not clean up.
    """

    model: Model
    total_bytes: int
    task: asyncio.Task[None]
    given_up: asyncio.Event
    watchers: int = 0
    is_detached: bool = False


class PullSteps:
    """The progress of a download, as an asynchronous iterator that raises what the download fails with.

    It is no generator: closing one that was never read would run nothing, and the download would go on for nobody.

    Args:
        yard: the models.
        name: of the model.
        pull: the download; None: there is nothing to wait for.
    """

    def __init__(self, yard: Yard, name: str, pull: Pull | None) -> None:
        self._yard, self._name, self._pull = yard, name, pull
        if pull is not None:
            pull.watchers += 1

    def __aiter__(self) -> PullSteps:
        return self

    async def __anext__(self) -> PullProgress:
        """Return how far the download is by now.

        Raises:
            StopAsyncIteration: it has ended.
            ModelLoadFailed: it has failed, or was given up.
        """
        if (pull := self._pull) is None:
            raise StopAsyncIteration
        while not pull.task.done():
            await asyncio.wait((pull.task,), timeout=_POLL_S)
            name = self._yard.directory.residency_names.get(pull.model.id)
            progress = None if name is None else self._yard.monitor.load_progress().get(name)
            if progress is not None:
                done = round(progress.fraction * pull.total_bytes)
                return PullProgress(progress.step, done, pull.total_bytes)
        pull.task.result()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop reading. Idempotent."""
        pull, self._pull = self._pull, None
        if pull is not None:
            pull.watchers -= 1
            if pull.watchers == 0 and not pull.is_detached:
                pull.given_up.set()
