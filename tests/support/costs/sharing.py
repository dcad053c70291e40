"""Work that shares workers: each job has at most one, and they divide equally where there are more jobs."""

from __future__ import annotations


class Shared:
    """A clock of work done, which runs slower than time where jobs are more than workers.

    A job that needs s seconds of a worker ends when the clock has advanced by s, whatever other jobs do. So nothing has
    to be done for the others when one begins or ends.

    Attributes:
        done_s: what the clock shows: seconds of work that a job had that was there all the time.
        jobs: how many there are now.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.done_s = 0.0
        self.jobs = 0
        self._at = 0.0

    @property
    def speed(self) -> float:
        """Seconds of work that a job gets in a second."""
        return min(1.0, self.workers / self.jobs) if self.jobs else 1.0

    def advance(self, now: float) -> None:
        """Have time pass until ``now``."""
        self.done_s += (now - self._at) * self.speed
        self._at = now

    def time_of(self, done_s: float) -> float:
        """Return when the clock shows ``done_s``, if no job begins or ends before."""
        return self._at + max(0.0, done_s - self.done_s) / self.speed
