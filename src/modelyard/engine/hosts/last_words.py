"""Describes why a process ended, from its exit status and the last message of llama.cpp."""

from __future__ import annotations

import re
import signal
from typing import Final

_MAX_SHOWN_LENGTH: Final = 300

# The last message of llama.cpp, and of an uncaught C++ exception. Source: ggml/src/ggml.c, ggml_abort.
_LAST_WORDS: Final = re.compile(r"\.(?:c|cc|cpp|cu|h|m|metal):\d+: |what\(\):")
_SOURCE_FOLDER: Final = re.compile(r"\S*/(?=[^/\s]+\.(?:c|cc|cpp|cu|h|m):\d+)")


def last_words(log: str) -> str:
    """Return the last line of a log that states why the process ended, without folders of source files; "" if none."""
    lines = (line.strip() for line in reversed(log.splitlines()))
    found = next((line for line in lines if _LAST_WORDS.search(line)), "")
    return _SOURCE_FOLDER.sub("", found)[:_MAX_SHOWN_LENGTH].strip()


def how_it_ended(status: int | None, log: str) -> str:
    """Return how a process ended, in words for users.

    Args:
        status: its exit status, a signal as a negative number; None: unknown.
        log: the end of its standard error.
    """
    words = last_words(log)
    if status is None:
        how = "its process is gone"
    elif status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        how = f"its process was ended by {name}"
        if status == -signal.SIGKILL:
            how += ", by hand or because memory ran out"
    else:
        how = f"its process ended with status {status}"
    return f"{how}: {words}" if words else how
