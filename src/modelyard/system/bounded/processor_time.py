"""A limit of this process's processor time, after which the kernel ends it."""

from __future__ import annotations

import math
import time


def limit_processor_time(seconds: float) -> None:
    """End this process with SIGXCPU after ``seconds`` more of processor time, summed over its threads.

    On systems without POSIX resource limits it has no effect, and the parent's timeout is the only limit.
    """
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    end_s = math.ceil(time.process_time() + seconds)
    # The hard limit, under which the server was started, cannot be raised.
    resource.setrlimit(resource.RLIMIT_CPU, (end_s if hard == resource.RLIM_INFINITY else min(end_s, hard), hard))
