"""Why a process ended, in words, from its exit status and from what llama.cpp wrote last."""

from __future__ import annotations

import re
import signal
from typing import Final

_SHOWN_OF_LOG: Final = 300

# Last words of llama.cpp, and of a C++ exception that nobody catches. Source: ggml/src/ggml.c, ggml_abort.
_LAST_WORDS: Final = re.compile(r"\.(?:c|cc|cpp|cu|h|m|metal):\d+: |what\(\):")
_SOURCE_FOLDER: Final = re.compile(r"\S*/(?=[^/\s]+\.(?:c|cc|cpp|cu|h|m):\d+)")


def last_words(log: str) -> str:
    """The last line of a log that says why the process ended, without the folders of source files; "" for none."""
    lines = (line.strip() for line in reversed(log.splitlines()))
    found = next((line for line in lines if _LAST_WORDS.search(line)), "")
    return _SOURCE_FOLDER.sub("", found)[:_SHOWN_OF_LOG].strip()


def how_it_ended(status: int | None, log: str) -> str:
    """How a process ended, for people.

    Args:
        status: of its exit, a signal as a negative number; None: it is not known.
        log: the end of what it wrote to its standard error.
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
