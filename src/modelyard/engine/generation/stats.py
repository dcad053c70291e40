"""Reports an engine's statistics: once a second while it computes, and when it becomes idle or busy."""

from __future__ import annotations

from modelyard.engine.loading.vision import Vision
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.protocol.values import EngineStats

INTERVAL_S = 1.0


class StatsReporter:
    """Reads statistics of one engine. Hot path: ``poll`` runs once a step, and nearly always returns None."""

    def __init__(self, scheduler: Scheduler, vision: Vision | None = None) -> None:
        self._scheduler = scheduler
        self._vision = vision
        self._published_pictures = 0, 0
        self._published_at = 0.0
        self._published_idle: bool | None = False
        self._published_preemptions = 0

    def refresh(self) -> None:
        """Have the next ``poll`` return the statistics, because they have changed otherwise than by computing."""
        self._published_idle = None

    def poll(self, now: float) -> EngineStats | None:
        """Return the statistics if they are due at ``now``, in seconds of a monotonic clock."""
        scheduler = self._scheduler
        is_idle = scheduler.is_idle
        if is_idle == self._published_idle and (is_idle or now < self._published_at + INTERVAL_S):
            return None
        cache, preemptions = scheduler.cache, scheduler.preemptions
        encoded, reused = images = (0, 0) if self._vision is None else (self._vision.encoded, self._vision.reused)
        stats = EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_cells=cache.capacity,
            used_cells=cache.capacity - cache.free,
            preemptions=preemptions - self._published_preemptions,
            pictures_encoded=encoded - self._published_pictures[0],
            pictures_reused=reused - self._published_pictures[1],
        )
        self._published_pictures = images
        self._published_at, self._published_idle, self._published_preemptions = now, is_idle, preemptions
        return stats
