"""What operators see of a yard: its numbers, its requests, its history and its changes, independent of the caller."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from modelyard.hub import Progress
from modelyard.yard.devices import YardDevices
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.runtime.inflight import RunningAnswer
from modelyard.yard.stats.broadcast import Observer
from modelyard.yard.stats.recorder import Recorder
from modelyard.yard.stats.snapshot import MetricsSnapshot, metrics_snapshot
from modelyard.yard.stats.status_broadcaster import StatusChange


class Monitor:
    """Reports on all models, and changes nothing. Use it on the yard's event loop.

    Args:
        controller: returns the controller of the yard; None: it is not started.
        factory: prepares files.
        devices: of the yard.
    """

    def __init__(
        self, controller: Callable[[], LifecycleController | None], factory: EngineFactory, devices: YardDevices
    ) -> None:
        self._controller_now = controller
        self._factory = factory
        self._devices = devices

    def metrics(self) -> MetricsSnapshot:
        """Return the numbers of all models."""
        return metrics_snapshot(self._controller.state, self._controller.counters)

    def device_descriptions(self) -> dict[str, str]:
        """Return what the devices are, such as the names of the products, by their names; nothing without devices."""
        return self._devices.descriptions()

    def load_progress(self) -> dict[str, Progress]:
        """Return the progress of every model whose files are being prepared, or whose load has begun."""
        controller = self._controller_now()
        loads = {} if controller is None else controller.load_progress
        loading = {name: Progress("loading", fraction) for name, fraction in loads.items()}
        return loading | self._factory.files.progress

    def running(self) -> list[RunningAnswer]:
        """Return the requests that are not over."""
        controller = self._controller_now()
        return [] if controller is None else controller.running()

    def observer(self) -> AbstractContextManager[Observer[StatusChange]]:
        """Return a context with an observer of all changes of load state and of load progress.

        Raises:
            TooManyConnections: there are as many observers as there may be.
        """
        return self._controller.watch.observer()

    def ending(self, end: Callable[[], object]) -> AbstractContextManager[None]:
        """Return a context in which ``end``, of another reader, is called when the observers of the yard are ended."""
        return self._controller.watch.ending(end)

    @property
    def recorder(self) -> Recorder:
        """What happened to requests and models."""
        return self._controller.recorder

    def dismiss_observers(self, *, for_good: bool = True) -> int:
        """End all observers: they would read for ever, and a server that stops waits for its readers.

        Return their number.

        Args:
            for_good: whether later observers end at once, too, as nothing more happens.
        """
        return self._controller.watch.close() if for_good else self._controller.watch.dismiss()

    @property
    def _controller(self) -> LifecycleController:
        controller = self._controller_now()
        if controller is None:
            raise RuntimeError("The yard is not started: call start() first")
        return controller
