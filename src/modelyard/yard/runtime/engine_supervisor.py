"""The engines of all models: their sizing, loading and end, and what an ended engine leaves for the next one.

Everything runs on one event loop. Engines run on threads, of this process or of others; their events arrive in batches,
one batch a step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from modelyard.errors import ModelyardError, OutOfDeviceMemory
from modelyard.protocol.events import Event, Publish
from modelyard.protocol.messages import Restore
from modelyard.protocol.placement import Placement
from modelyard.protocol.requests import Stop
from modelyard.yard.residency import events
from modelyard.yard.runtime.interfaces import EngineHandle, EngineSource, ModelFilesReplaced, ModelOutgrown

if TYPE_CHECKING:
    from modelyard.protocol.events import HeldWeights
    from modelyard.protocol.kv_snapshot import KeptPrefixes

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_Outcome: TypeAlias = (
    events.EngineFreed | events.EngineLoadFailed | events.EngineDied | events.FilesReplaced | events.Outgrown
)

# A thread exits right after its last event, so the wait for its exit is short.
EXIT_TIMEOUT_S = 1.0


class EngineSupervisor:
    """Sizes, loads and frees models.

    Args:
        factory: sizes models and makes their engines.
        receive: called with a model, and the events that its engine has published with one step.
        report: called with the outcome for a model: Sized, EngineFreed, EngineLoadFailed, EngineDied, FilesReplaced,
            Outgrown or WeightsLost.
        devices_of: returns a function for a model on devices, and None for others. The function is called before the
            model's failure or death is reported, and returns whether one of its devices is gone.

    Attributes:
        engines: by model, from the start of their threads to their last events.
    """

    def __init__(
        self,
        factory: EngineSource,
        receive: Callable[[str, Sequence[Event]], None],
        report: Callable[[events.ResidencyEvent], None],
        devices_of: Callable[[str], Callable[[], Awaitable[bool]] | None] = lambda _model: None,
    ) -> None:
        self.engines: dict[str, EngineHandle] = {}
        self._factory = factory
        self._receive = receive
        self._report = report
        self._devices_of = devices_of
        self._loop = asyncio.get_running_loop()
        # The task that sizes or loads a model, or frees its parked weights: one at a time for each.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kept: dict[str, KeptPrefixes] = {}
        self._parked: dict[str, HeldWeights] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there are no engines, and no tasks that make or free one."""
        return not self.engines and not self._tasks

    def size(self, model: str) -> None:
        """Begin to size ``model``."""
        self._tasks[model] = self._loop.create_task(self._size(model), name=f"size {model}")

    def load(self, model: str, placement: Placement, cells: int) -> None:
        """Begin to make and start an engine for ``model`` in ``placement``, with so many KV cells; 0: with all."""
        self._tasks[model] = self._loop.create_task(self._load(model, placement, cells), name=f"load {model}")

    def read_ahead(self, model: str) -> None:
        """Begin to read the files of ``model``, which waits for the memory of others."""
        self._factory.read_ahead(model)

    def free(self, model: str, stop: Stop) -> None:
        """Stop the engine of ``model``, or cancel the task that sizes or loads it."""
        engine = self.engines.get(model)
        if engine is not None:
            engine.send(stop)
            return
        task = self._tasks.pop(model, None)
        if task is not None:
            task.cancel()
        kept = self._kept.get(model)
        self.conclude(events.EngineFreed(model, 0 if kept is None else kept.size_bytes))

    def discard_kept(self, model: str) -> None:
        """Discard the prompts that were kept of ``model``."""
        self._kept.pop(model, None)

    def loaded(self, model: str) -> None:
        """Release the parked weights of ``model``: its engine uses them now, so they stay in memory."""
        if (parked := self._parked.pop(model, None)) is not None:
            parked.release()

    def lose_weights(self, model: str, reason: str) -> None:
        """Note that the parked weights of ``model`` are free, because the process that held them has ended."""
        if self._parked.pop(model, None) is not None:
            self._report(events.WeightsLost(model, reason))

    def detach(self, model: str) -> bool:
        """Remove the engine of ``model``, which has published its last event; return whether its thread has ended."""
        return self.engines.pop(model).join(EXIT_TIMEOUT_S)

    def hold(self, model: str, kept: KeptPrefixes | None, parked: HeldWeights | None) -> None:
        """Hold what the engine of ``model`` has not freed, its kept prompts and parked weights, for the next engine."""
        if kept is not None:
            self._kept[model] = kept
        freed = events.EngineFreed(model, 0 if kept is None else kept.size_bytes, parked is not None)
        if parked is None:
            self.conclude(freed)
        else:
            self._parked[model] = parked
            self._report(freed)

    def conclude(self, event: _Outcome) -> None:
        """Report the end of a model once its parked weights are free, too."""
        is_failure = isinstance(event, events.EngineLoadFailed | events.EngineDied)
        if is_failure and (are_gone := self._devices_of(event.model)) is not None:
            work = self._conclude_after(are_gone, event)
            self._tasks[event.model] = self._loop.create_task(work, name=f"look at the devices of {event.model}")
        else:
            self._conclude(event)

    async def _conclude_after(self, are_gone: Callable[[], Awaitable[bool]], event: _Outcome) -> None:
        """Report a failure once the residency knows of devices that are gone: the model is then loaded elsewhere."""
        is_gone = await are_gone()
        self._remove_current_task()
        if is_gone and isinstance(event, events.EngineLoadFailed):
            event = replace(event, lacks_device_memory=True)
        self._conclude(event)

    def _conclude(self, event: _Outcome) -> None:
        parked = self._parked.pop(event.model, None)
        if parked is None:
            self._report(event)
        else:
            freeing = self._free_parked(event, parked)
            self._tasks[event.model] = self._loop.create_task(freeing, name=f"drop {event.model}")

    async def _free_parked(self, event: events.ResidencyEvent, parked: HeldWeights) -> None:
        # On another thread: unmapping many gigabytes would delay the streams on the event loop.
        await asyncio.to_thread(parked.release)
        self._remove_current_task()
        self._report(event)

    async def _size(self, model: str) -> None:
        choices = await self._attempt(model, self._factory.size(model))
        if choices is not None:
            self._report(events.Sized(model, choices[0], choices[1:]))

    async def _load(self, model: str, placement: Placement, cells: int) -> None:
        engine = await self._attempt(model, self._start(model, placement, cells))
        if engine is not None:
            # The engine's first events come through the event loop, and so after this line.
            self.engines[model] = engine

    async def _start(self, model: str, placement: Placement, cells: int) -> EngineHandle:
        engine = await self._factory.make(model, self._publisher(model), placement, cells)
        kept = self._kept.pop(model, None)
        if kept is not None:
            engine.send(Restore(kept))
        engine.start()
        return engine

    async def _attempt(self, model: str, work: Awaitable[_T]) -> _T | None:
        """Return the result of ``work``; None where it fails, which fails the load."""
        outcome: events.EngineLoadFailed | events.FilesReplaced | events.Outgrown
        try:
            return await work
        except ModelFilesReplaced as replaced:
            outcome = events.FilesReplaced(model, replaced.file)
        except ModelOutgrown as outgrown:
            outcome = events.Outgrown(model, outgrown.footprint)
        except ModelyardError as error:
            outcome = events.EngineLoadFailed(model, str(error), isinstance(error, OutOfDeviceMemory))
        except Exception as failure:
            # A load that ends without an outcome would leave its callers waiting for ever.
            logger.exception("The load of %s failed", model)
            reason = f"an internal error ({type(failure).__name__}); the server's log has the details"
            outcome = events.EngineLoadFailed(model, reason)
        finally:
            self._remove_current_task()
        self.conclude(outcome)
        return None

    def _remove_current_task(self) -> None:
        """Remove the running task, unless it was cancelled and another task has taken its place."""
        current = asyncio.current_task()
        self._tasks = {model: task for model, task in self._tasks.items() if task is not current}

    def _publisher(self, model: str) -> Publish:
        def publish(batch: Sequence[Event]) -> None:
            """Pass the events of a step to the event loop in one call. Called on an engine's thread."""
            try:
                self._loop.call_soon_threadsafe(self._receive, model, batch)
            except RuntimeError:
                # The event loop is closed, so no reader is left.
                logger.debug("Events of %s came after the end", model)

        return publish
