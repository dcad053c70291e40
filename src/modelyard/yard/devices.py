"""The devices of a yard: which there are, and how much of their memory models may take."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from modelyard.config import Config
from modelyard.yard.residency.events import DeviceBudgetsChanged, Outdated
from modelyard.yard.runtime.controller import LifecycleController
from modelyard.yard.runtime.device_watch import DeviceWatch
from modelyard.yard.runtime.engine_factory import EngineFactory
from modelyard.yard.runtime.placements import may_use_devices, placement_of

logger = logging.getLogger(__name__)


class YardDevices:
    """Brings devices and their budgets to the factory, which sizes models for them, and to the residency.

    Args:
        watch: lists the devices and watches their memory; None: models use no devices.
        factory: sizes the models.

    Attributes:
        watch: as given.
    """

    def __init__(self, watch: DeviceWatch | None, factory: EngineFactory) -> None:
        self.watch = watch
        self._factory = factory

    @property
    def refresh(self) -> Callable[[], Awaitable[None]] | None:
        """Returns once the devices were read again; None: models use none."""
        return None if self.watch is None else self.watch.refresh

    def descriptions(self) -> dict[str, str]:
        """Return what the devices are, such as the names of the products, by their names; nothing without devices."""
        return {} if self.watch is None else {device.name: device.description for device in self.watch.found}

    async def list(self, config: Config) -> None:
        """List the devices if a configuration may use them, and they were not listed before.

        Raises:
            ConfigError: it has a budget of a device that does not exist.
        """
        if self.watch is not None and _may_use_devices(config) and not self.watch.is_listed:
            memory = self._factory.memory
            memory.devices = memory.known_devices = await self.watch.list()
        if self.watch is not None and self.watch.found:
            self.watch.check(config.memory.devices)
        elif config.memory.devices:
            logger.warning("The budgets in [memory.devices] have no effect: models use no devices here")

    def apply_budgets(self, config: Config) -> Mapping[str, int]:
        """Apply the budgets of a configuration, and return what models may take of each device, by its pool."""
        budgets = {} if self.watch is None else self.watch.configure(config.memory.devices)
        self._factory.memory.device_budgets = budgets
        return budgets

    def follow(self, controller: LifecycleController) -> None:
        """Begin to pass changes on, if that was not begun."""
        if (watch := self.watch) is None:
            return

        def feed(changed: DeviceBudgetsChanged) -> None:
            self._factory.memory.devices, self._factory.memory.device_budgets = watch.found, watch.budgets
            controller.feed(changed)
            for name in self._factory.outdated():
                controller.feed(Outdated(name))

        watch.follow(lambda: controller.state, feed)

    async def close(self) -> None:
        """End the watch. Bounded."""
        if self.watch is not None:
            await self.watch.close()


def _may_use_devices(config: Config) -> bool:
    """Whether any model of this machine may be on an accelerator."""
    return any(may_use_devices(placement_of(config, model)) for model in config.models if not model.is_remote)
