"""Calls recursive C functions on a thread whose stack is as large as they need.

``std::regex``, which most of llama.cpp's pre-tokenizers use, recurses once for each character of a match. On a thread
of the usual 8 MB, 30,000 equal letters end the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

_T = TypeVar("_T")

# The stack size is set for all threads that are started; other threads started meanwhile only get a larger one.
_SIZE = threading.Lock()
_PAGE: Final = 4096


def call_on_deep_stack(function: Callable[[], _T], stack_bytes: int) -> _T:
    """Call ``function`` on a thread of its own with a stack of ``stack_bytes``; return or raise what it does.

    The stack is address space: only touched pages take memory, which is freed with the thread.

    Raises:
        MemoryError: the system does not grant so much address space.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as failure:  # noqa: BLE001 (raised where it is waited for)
            outcome.set_exception(failure)

    thread = threading.Thread(target=run, name="deep stack", daemon=True)
    with _SIZE:
        before = threading.stack_size(-(-stack_bytes // _PAGE) * _PAGE)
        try:
            thread.start()
        except RuntimeError as refused:
            raise MemoryError(f"There is no address space for a stack of {stack_bytes >> 20} MB.") from refused
        finally:
            threading.stack_size(before)
    return outcome.result()
