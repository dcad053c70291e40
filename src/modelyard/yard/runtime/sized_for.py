"""The memory of devices that models were sized for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from modelyard.engine.placing import LlamaDevice, accelerators
from modelyard.yard.memory.fit_context import SPARE_PART


class DeviceMemory(NamedTuple):
    """The accelerators of the machine, and what models may take of them.

    Attributes:
        names: of the accelerators.
        budgets: bytes, by pool.
    """

    names: frozenset[str]
    budgets: Mapping[str, int]

    @classmethod
    def of(cls, devices: Sequence[LlamaDevice], budgets: Mapping[str, int]) -> DeviceMemory:
        """Return that of a machine with ``devices``."""
        return cls(frozenset(device.name for device in accelerators(devices)), dict(budgets))

    def is_outdated(self, present: DeviceMemory, *, has_fitted_context: bool) -> bool:
        """Whether a model that was sized for this memory is to be sized again.

        Devices have come or gone, or the context was chosen by what fits, and a budget differs by more than what stays
        spare where contexts are shortened.
        """
        if self.names != present.names:
            return True
        return has_fitted_context and any(
            abs(self.budgets.get(pool, 0) - present.budgets.get(pool, 0))
            > SPARE_PART * max(self.budgets.get(pool, 0), present.budgets.get(pool, 0))
            for pool in self.budgets.keys() | present.budgets.keys()
        )
