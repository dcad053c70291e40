"""Turns what engines report into events of the residency, counts and lines of the log, on one event loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from modelyard.protocol.events import (
    ContextResized,
    ContextWanted,
    Died,
    Dying,
    Event,
    FileWrittenOver,
    Loaded,
    LoadFailed,
    LoadProgress,
    ParkedWeightsLost,
    Stopped,
)
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.values import EngineStats, SequenceId
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.requests.content import content_of
from modelyard.yard.residency import events
from modelyard.yard.residency.failures import may_fall_back
from modelyard.yard.residency.state import LoadState, Residency
from modelyard.yard.residency.waiting import RequestId
from modelyard.yard.runtime.engine_supervisor import EngineSupervisor
from modelyard.yard.runtime.inflight import InflightRequests
from modelyard.yard.stats import log_lines
from modelyard.yard.stats.counters import Counters
from modelyard.yard.stats.status import after_death
from modelyard.yard.stats.status_broadcaster import StatusBroadcaster

logger = logging.getLogger(__name__)


class EngineReports:
    """Handles the events of engines, and the outcomes of loads, frees and deaths.

    Args:
        engines: the engines that report.
        inflight: takes the events of requests.
        counters: counts loads, deaths and statistics.
        watch: publishes the progress of loads.
        state: returns the state of the residency.
        feed: feeds it with events.

    Attributes:
        profiles: what the engines reported of their models, by model; from the first load on.
        load_progress: part of the weights that is read, by model.
    """

    def __init__(
        self,
        engines: EngineSupervisor,
        inflight: InflightRequests,
        counters: Counters,
        watch: StatusBroadcaster,
        state: Callable[[], Residency],
        feed: Callable[[events.ResidencyEvent], None],
    ) -> None:
        self.profiles: dict[str, ModelProfile] = {}
        self.load_progress: dict[str, float] = {}
        self._engines = engines
        self._inflight = inflight
        self._counters = counters
        self._watch = watch
        self._state_now = state
        self._feed = feed

    @property
    def _state(self) -> Residency:
        return self._state_now()

    def receive(self, model: str, batch: Sequence[Event]) -> None:
        """Handle the events that the engine of ``model`` has published with one step, in their order."""
        now = time.monotonic()
        name = self._state.display_name(model)
        for event in self._inflight.receive(name, batch, now):
            match event:
                case EngineStats():
                    self._counters[name].record_stats(event)
                case LoadProgress(fraction):
                    self.load_progress[model] = fraction
                    self._watch.progress(name, fraction)
                case Loaded(profile):
                    self._loaded(model, profile, now)
                case ContextWanted(needed, desired):
                    self._feed(events.GrowthWanted(model, needed, desired))
                case ContextResized(cells, failure):
                    self._feed(events.EngineResized(model, cells, failure))
                case LoadFailed(reason, lacks_device_memory):
                    self._discard_engine(model)
                    self._engines.conclude(events.EngineLoadFailed(model, reason, lacks_device_memory))
                case Dying(reason, active):
                    self._on_dying(model, reason, active)
                case Died(reason):
                    if self._state.models[model].load_state is LoadState.LOADED:
                        # Without EngineDying first, waiting requests would be granted the engine that is gone.
                        self._on_dying(model, reason, ())
                    self._discard_engine(model, reason)
                    self._engines.conclude(events.EngineDied(model, reason))
                case Stopped(kept, parked):
                    self._discard_engine(model)
                    self._engines.hold(model, kept, parked)
                case FileWrittenOver(file):
                    logger.warning(
                        "%s: the file %s was written over while it was served. The model is unloaded, its running "
                        "requests end, and the next request loads the file as it is then. Put new files in the place "
                        "of old ones with mv.",
                        name,
                        file,
                    )
                    self._feed(events.FilesWrittenOver(model, file))
                case ParkedWeightsLost(reason):
                    logger.warning("The parked weights of %s are lost: %s", name, reason)
                    self._engines.lose_weights(model, reason)

    def conclude(self, event: events.ResidencyEvent) -> None:
        """Count, log and feed the outcome for a model that the supervisor reports."""
        if isinstance(event, events.EngineLoadFailed):
            self._counters[self._state.display_name(event.model)].loads["failed"] += 1
        elif isinstance(event, events.EngineDied):
            self._count_death(event.model)
        if isinstance(event, events.EngineLoadFailed) and self._falls_back(event):
            logger.warning("%s", log_lines.fell_back(self._state, event.model, event.reason))
        self._feed(event)
        if isinstance(event, events.EngineLoadFailed) and self._has_failed(event.model):
            logger.error("%s", log_lines.failed(self._state, event.model, event.reason))
        if isinstance(event, events.EngineDied) and event.model in self._state.models:
            model = self._state.models[event.model]
            what = after_death(self._state, model)
            logger.warning("The engine of %s died (%s): %s", model.policy.name, event.reason, what)

    def discard(self, model: str) -> None:
        """Drop what is known of ``model``, which is removed."""
        self.profiles.pop(model, None)
        self.load_progress.pop(model, None)

    def _loaded(self, model: str, profile: ModelProfile, now: float) -> None:
        self._engines.loaded(model)
        self.profiles[model] = profile
        took_s = now - self._state.models[model].load_began
        self._counters[self._state.display_name(model)].record_load(took_s)
        self._feed(events.EngineLoaded(model, self._measured(model, profile), profile.is_isolated))
        if model in self._state.models:
            logger.info("%s", log_lines.loaded(self._state, model, took_s))

    def _on_dying(self, model: str, reason: str, active: Sequence[SequenceId]) -> None:
        """Note that the engine of ``model`` no longer serves, and was computing ``active`` when it failed."""
        name = self._state.display_name(model)
        open_ = {sequence: self._inflight.open.get(RequestId(sequence)) for sequence in active}
        contents = tuple(
            (RequestId(sequence), content_of(name, inflight.submit))
            for sequence, inflight in open_.items()
            if inflight is not None
        )
        self._feed(events.EngineDying(model, reason, contents))

    def _measured(self, model: str, profile: ModelProfile) -> Footprint | None:
        state = self._state.models[model]
        if state.footprint is None:
            return None
        # Devices that share the host's memory have a share in no footprint.
        pools = {share.pool for each in (state.footprint, *state.choices) for share in each.devices}
        measured = state.footprint.measured(
            profile.weights_bytes, profile.context_bytes, dict(profile.device_bytes), pools
        )
        return measured.mapping(profile.mapped_bytes)

    def _count_death(self, model: str) -> None:
        state, counters = self._state.models.get(model), self._counters[self._state.display_name(model)]
        counters.deaths += 1
        if state is not None and state.load_state is LoadState.LOADING:
            counters.loads["failed"] += 1
        elif state is not None and state.was_serving:
            counters.unloads["died"] += 1

    def _has_failed(self, model: str) -> bool:
        state = self._state.models.get(model)
        return state is not None and state.load_state is LoadState.FAILED

    def _falls_back(self, failed: events.EngineLoadFailed) -> bool:
        model = self._state.models.get(failed.model)
        return failed.lacks_device_memory and model is not None and may_fall_back(model)

    def _discard_engine(self, model: str, reason: str = "it was stopped") -> None:
        self._inflight.lose(self._engines.engines[model], reason)
        self._counters[self._state.display_name(model)].engine_stats = None
        # Last: losing the requests may end a drain, and so free the model. Without an engine that would be done at
        # once, and the next load would begin before the residency knows how this engine ended.
        if not self._engines.detach(model):
            logger.warning("The thread of %s's engine goes on after its last event", model)
