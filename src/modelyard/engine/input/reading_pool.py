"""Threads on which prompts become tokens, beside the engine's own.

A chat template may take two seconds and a text of a megabyte as long, which no stream and no other request is to wait
for. The engine hears of the outcome through its inbox.
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

# So many prompts may take long before another has to wait.
READERS: Final = 4

# A text up to so many characters takes half a millisecond, which is less than a thread takes to begin.
QUICK_CHARACTERS: Final = 512


def is_quick(prompt: Prompt) -> bool:
    """Whether a prompt can be read at once."""
    match prompt:
        case Tokens():
            return True
        case Text(text):
            return len(text) <= QUICK_CHARACTERS
    return False


def outcome_of(outcome: Future[_T], name: str) -> _T:
    """What was read for the model ``name``.

    Raises:
        ModelyardError: what reading it raised. What it never should raise fails the request alone.
    """
    try:
        return outcome.result()
    except ModelyardError:
        raise
    except Exception as failure:
        logger.exception("A prompt could not be read by %s", name)
        raise EngineError(name, f"{type(failure).__name__}: {failure}") from failure


class ReadingPool:
    """The threads of one engine, started when they are needed.

    Args:
        name: of the model, in the names of threads.
        record: where the engine notes whose prompts are being read.
    """

    def __init__(self, name: str, record: EngineRecord) -> None:
        self._name, self._record = name, record
        self._threads: ThreadPoolExecutor | None = None

    def submit(
        self, request: int, read: Callable[[], _T], on_done: Callable[[Future[_T]], object] | None = None
    ) -> Future[_T]:
        """Have ``read`` called for a request on one of the threads. ``on_done`` is called with the outcome, on any
        thread.

        To cancel the future spares the work, where that has not begun.
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
        """End the threads, before the vocabulary is freed that they read."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
