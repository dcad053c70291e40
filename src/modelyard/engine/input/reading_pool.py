"""Threads that read prompts, beside the engine's own.

Rendering a chat template may take two seconds, and tokenising a text of a megabyte as long; no stream and no other
request waits for that. The outcome reaches the engine through its inbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.errors import EngineError, ModelyardError
from modelyard.protocol.prompts import Prompt, Text, Tokens

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# Number of threads: with as many slow prompts, the next prompt has to wait.
READERS: Final = 4

# A text up to this length takes half a millisecond, less than a thread takes to start.
QUICK_CHARACTERS: Final = 512


def is_quick(prompt: Prompt) -> bool:
    """Whether a prompt can be read on the engine's own thread."""
    match prompt:
        case Tokens():
            return True
        case Text(text):
            return len(text) <= QUICK_CHARACTERS
    return False


def outcome_of(outcome: Future[_T], name: str) -> _T:
    """Return what was read for the model ``name``.

    Raises:
        ModelyardError: reading raised it, or raised anything else, which fails this request alone.
    """
    try:
        return outcome.result()
    except ModelyardError:
        raise
    except Exception as failure:
        logger.exception("%s could not read a prompt", name)
        raise EngineError(name, f"{type(failure).__name__}: {failure}") from failure


class ReadingPool:
    """The reader threads of one engine, started when they are needed.

    Args:
        name: id of the model, in the names of threads.
        record: the engine's record, which lists the requests that are being read.
    """

    def __init__(self, name: str, record: EngineRecord) -> None:
        self._name, self._record = name, record
        self._threads: ThreadPoolExecutor | None = None

    def submit(
        self, request: int, read: Callable[[], _T], on_done: Callable[[Future[_T]], object] | None = None
    ) -> Future[_T]:
        """Call ``read`` for a request on one of the threads, then ``on_done`` with the outcome, on any thread.

        Cancelling the future saves the work, if that has not started.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(READERS, f"read {self._name}")
        future = self._threads.submit(self._read, request, read)
        if on_done is not None:
            future.add_done_callback(on_done)
        return future

    def _read(self, request: int, read: Callable[[], _T]) -> _T:
        with self._record.reading(request):
            return read()

    def close(self) -> None:
        """End the threads. Must be called before the vocabulary that they read is freed."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
