"""Says how an engine is: once a second while it computes, and whenever it becomes idle or busy."""

from __future__ import annotations

from modelyard.engine.loading.vision import Vision
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.protocol.values import EngineStats

PULSE_S = 1.0


class StatsReporter:
    """Looks at one engine's scheduler and projector. Hot path: asked once a step, and nearly always for nothing."""

    def __init__(self, scheduler: Scheduler, vision: Vision | None = None) -> None:
        self._scheduler = scheduler
        self._vision = vision
        self._told_pictures = 0, 0
        self._told_at = 0.0
        self._told_idle = False
        self._told_preemptions = 0

    def beat(self, now: float) -> EngineStats | None:
        """What is to be told at ``now``, in seconds of a clock that never goes back."""
        scheduler = self._scheduler
        is_idle = scheduler.is_idle
        if is_idle == self._told_idle and (is_idle or now < self._told_at + PULSE_S):
            return None
        cache, preemptions = scheduler.cache, scheduler.preemptions
        encoded, reused = pictures = (0, 0) if self._vision is None else (self._vision.encoded, self._vision.reused)
        vitals = EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_cells=cache.capacity,
            used_cells=cache.capacity - cache.free,
            preemptions=preemptions - self._told_preemptions,
            pictures_encoded=encoded - self._told_pictures[0],
            pictures_reused=reused - self._told_pictures[1],
        )
        self._told_pictures = pictures
        self._told_at, self._told_idle, self._told_preemptions = now, is_idle, preemptions
        return vitals
