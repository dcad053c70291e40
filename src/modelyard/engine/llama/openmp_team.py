"""The OpenMP threads that compute for the thread of an engine.

GNU OpenMP keeps the threads that computed with a thread until that ends. Where they are more than the cores, with those
of all other engines of the process, it lets none of them spin at a barrier for long, so that an idle engine would halve
the speed of the others. Source: libgomp, config/linux/wait.h, do_spin, and team.c, gomp_pause_host.
"""

from __future__ import annotations

from typing import Final

from modelyard.engine.llama.library import ggml

# Seconds after which the threads of an idle engine end.
_IDLE_S: Final = 0.1

# Source: omp.h, enum omp_pause_resource_t.
_SOFT: Final = 1


class OpenMpTeam:
    """The threads that compute for one engine. All methods run on the engine's thread."""

    def __init__(self) -> None:
        self._is_there = False

    @property
    def idle_s(self) -> float | None:
        """Seconds without work after which ``end`` is to be called; None: there is nothing to end."""
        return _IDLE_S if self._is_there else None

    def use(self, threads: int) -> None:
        """Prepare for a computation with so many threads, of which the engine's own is one."""
        if threads > 1:
            self._is_there = True
        elif self._is_there:
            self.end()

    def end(self) -> None:
        """End the threads; the next computation starts others, which takes some 50 us."""
        self._is_there = False
        # A llama.cpp that was built without OpenMP has neither function.
        pause, host = (getattr(ggml, name, None) for name in ("omp_pause_resource", "omp_get_initial_device"))
        if pause is not None and host is not None:
            pause(_SOFT, host())
