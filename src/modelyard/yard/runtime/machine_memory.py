"""The memory of the machine that models may take, and its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.engine.placing import LlamaDevice, accelerators
from modelyard.protocol.placement import HOST_NAME


@dataclass(slots=True)
class MachineMemory:
    """Budgets and devices, as they are at the moment.

    Attributes:
        budget_bytes: memory of the host that all models may take together.
        device_budgets: the same of each device, by its pool.
        devices: all devices of the machine, as they were last listed; () without accelerators.
        known_devices: all devices that were listed at the start, some of which may be gone; () where none were.
    """

    budget_bytes: int = 0
    device_budgets: Mapping[str, int] = field(default_factory=dict)
    devices: tuple[LlamaDevice, ...] = ()
    known_devices: tuple[LlamaDevice, ...] = ()

    @property
    def budgets(self) -> Mapping[str, int]:
        """The bytes of each pool of memory that all models may take together."""
        return {HOST_NAME: self.budget_bytes, **self.device_budgets}

    @property
    def has_lost_accelerators(self) -> bool:
        """Whether there were accelerators at the start, and none is left."""
        return bool(accelerators(self.known_devices)) and not accelerators(self.devices)
