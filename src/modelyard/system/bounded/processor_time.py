"""A limit of the processor time of this process, after which the system ends it."""

from __future__ import annotations

import math
import time


def limit_processor_time(seconds: float) -> None:
    """End this process with SIGXCPU after so much more processor time of all its threads.

    Where the system cannot (it is no POSIX), the clock of whoever started the process is what remains.
    """
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    end_s = math.ceil(time.process_time() + seconds)
    # A limit that the server itself was started under cannot be raised.
    resource.setrlimit(resource.RLIMIT_CPU, (end_s if hard == resource.RLIM_INFINITY else min(end_s, hard), hard))
