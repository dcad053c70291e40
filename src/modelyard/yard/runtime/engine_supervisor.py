"""The engines of all models: the work that brings them, and what those that are gone have left for the next.

Everything here happens on one event loop. Engines are threads; their events arrive in batches, one a step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from modelyard.errors import ModelyardError
from modelyard.protocol.events import Event, Publish
from modelyard.protocol.messages import Restore
from modelyard.protocol.requests import Stop
from modelyard.yard.residency import events
from modelyard.yard.runtime.interfaces import EngineHandle, EngineSource, ModelFilesReplaced

if TYPE_CHECKING:
    from modelyard.protocol.events import HeldWeights
    from modelyard.protocol.kv_snapshot import KeptPrefixes

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# A thread's last event is its last act; only its exit is waited for.
LAST_MOMENT_S = 1.0


class EngineSupervisor:
    """Has models sized, loaded and freed.

    Args:
        workshop: sizes models and makes their engines.
        receive: called with a model, and what its engine has published with one step.
        tell: called with what became of a model: Sized, Freed, LoadFailed, EngineDied, FilesReplaced or
            ParkedWeightsLost.

    Attributes:
        engines: by model, from the start of their threads to their last events.
    """

    def __init__(
        self,
        factory: EngineSource,
        receive: Callable[[str, Sequence[Event]], None],
        tell: Callable[[events.ResidencyEvent], None],
    ) -> None:
        self.engines: dict[str, EngineHandle] = {}
        self._factory = factory
        self._receive = receive
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        # Sizing and loading, by model: never both at once.
        self._works: dict[str, asyncio.Task[None]] = {}
        self._kept: dict[str, KeptPrefixes] = {}
        self._parked: dict[str, HeldWeights] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there are no engines, and no work on any."""
        return not self.engines and not self._works

    def size(self, model: str) -> None:
        """Have ``model`` sized."""
        self._works[model] = self._loop.create_task(self._size(model), name=f"size {model}")

    def load(self, model: str) -> None:
        """Have an engine made for ``model``, and started."""
        self._works[model] = self._loop.create_task(self._load(model), name=f"load {model}")

    def free(self, model: str, stop: Stop) -> None:
        """Stop the engine of ``model``, or give up the work on one."""
        engine = self.engines.get(model)
        if engine is not None:
            engine.send(stop)
            return
        work = self._works.pop(model, None)
        if work is not None:
            work.cancel()
        kept = self._kept.get(model)
        self.conclude(events.EngineFreed(model, 0 if kept is None else kept.size_bytes))

    def discard_kept(self, model: str) -> None:
        """Drop the prompts that were kept of ``model``."""
        self._kept.pop(model, None)

    def loaded(self, model: str) -> None:
        """The engine of ``model`` has found the weights that were parked for it: they are not freed with this."""
        if (parked := self._parked.pop(model, None)) is not None:
            parked.release()

    def lose_weights(self, model: str, reason: str) -> None:
        """The weights that were parked for ``model`` are free, as what held them has ended."""
        if self._parked.pop(model, None) is not None:
            self._tell(events.WeightsLost(model, reason))

    def detach(self, model: str) -> bool:
        """Let go of the engine of ``model``, which has published its last event; whether its thread has ended."""
        return self.engines.pop(model).join(LAST_MOMENT_S)

    def hold(self, model: str, kept: KeptPrefixes | None, parked: HeldWeights | None) -> None:
        """The engine of ``model`` has freed all but these, which are held for the next."""
        if kept is not None:
            self._kept[model] = kept
        freed = events.EngineFreed(model, 0 if kept is None else kept.size_bytes, parked is not None)
        if parked is None:
            self.conclude(freed)
        else:
            self._parked[model] = parked
            self._tell(freed)

    def conclude(
        self, event: events.EngineFreed | events.EngineLoadFailed | events.EngineDied | events.FilesReplaced
    ) -> None:
        """Tell the end of a model, as soon as weights that were parked for it are free too."""
        parked = self._parked.pop(event.model, None)
        if parked is None:
            self._tell(event)
        else:
            dropping = self._drop(event, parked)
            self._works[event.model] = self._loop.create_task(dropping, name=f"drop {event.model}")

    async def _drop(self, event: events.ResidencyEvent, parked: HeldWeights) -> None:
        # Not on this thread: to unmap many gigabytes takes long enough for a stream to notice.
        await asyncio.to_thread(parked.release)
        self._leave_work()
        self._tell(event)

    async def _size(self, model: str) -> None:
        footprint = await self._attempt(model, self._factory.size(model))
        if footprint is not None:
            self._tell(events.Sized(model, footprint))

    async def _load(self, model: str) -> None:
        engine = await self._attempt(model, self._start(model))
        if engine is not None:
            # Not too late for its first events: they come through the event loop.
            self.engines[model] = engine

    async def _start(self, model: str) -> EngineHandle:
        engine = await self._factory.make(model, self._publisher(model))
        kept = self._kept.pop(model, None)
        if kept is not None:
            engine.send(Restore(kept))
        engine.start()
        return engine

    async def _attempt(self, model: str, work: Awaitable[_T]) -> _T | None:
        """What ``work`` gives; None where it fails, which fails the load."""
        outcome: events.EngineLoadFailed | events.FilesReplaced
        try:
            return await work
        except ModelFilesReplaced as replaced:
            outcome = events.FilesReplaced(model, replaced.file)
        except ModelyardError as error:
            outcome = events.EngineLoadFailed(model, str(error))
        except Exception as failure:
            # A load that ends without an outcome would leave its callers waiting for ever.
            logger.exception("The load of %s failed", model)
            reason = f"an internal error ({type(failure).__name__}); the server's log has the details"
            outcome = events.EngineLoadFailed(model, reason)
        finally:
            self._leave_work()
        self.conclude(outcome)
        return None

    def _leave_work(self) -> None:
        """The task that runs is done with its model; of one that was given up, another may have taken the place."""
        mine = asyncio.current_task()
        self._works = {model: work for model, work in self._works.items() if work is not mine}

    def _publisher(self, model: str) -> Publish:
        def publish(batch: Sequence[Event]) -> None:
            """Called on an engine's thread: one hop to the event loop for all events of a step."""
            try:
                self._loop.call_soon_threadsafe(self._receive, model, batch)
            except RuntimeError:
                # The event loop is closed: nobody is left to hear of it.
                logger.debug("Events of %s came after the end", model)

        return publish
