"""What models take of the memory of devices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.residency.state import LoadState, Residency


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """Memory of one device, in bytes.

    Attributes:
        budget_bytes: what all models may take together; 0 for a device that is gone.
        used_bytes: what they take; shared weights count once.
    """

    budget_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """What models may still take."""
        return max(0, self.budget_bytes - self.used_bytes)


def device_uses(state: Residency, also: Iterable[str] = ()) -> dict[str, DeviceUse]:
    """Return the memory of each device that models may take, or that one takes, and of the pools in ``also``."""
    used = of_devices(state.used)
    names = sorted({*state.device_budgets, *used, *also} - {HOST_NAME})
    return {name: DeviceUse(state.budget_of(name), used.get(name, 0)) for name in names}


def device_bytes(state: Residency, name: str, profile: ModelProfile | None) -> dict[str, int]:
    """Return the bytes that a model takes of each device now.

    Of a loaded model all are returned as they were measured, of a parked one the weights. While it is loaded or freed,
    the numbers of the residency count, which are predicted or corrected.

    Args:
        state: of all models.
        name: of the model.
        profile: of its last load; None: it was not loaded yet.
    """
    load_state = state.models[name].load_state
    if profile is None or not profile.device_bytes or load_state not in (LoadState.LOADED, LoadState.PARKED):
        return of_devices(state.taken([name], state.weights_alone())) if state.models[name].is_resident else {}
    is_parked = load_state is LoadState.PARKED
    return {
        pool: taken.weights if is_parked else taken.total for pool, taken in profile.device_bytes if pool != HOST_NAME
    }


def of_devices(taken: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes that are taken of devices, without the host and without zeros."""
    return {pool: size for pool, size in sorted(taken.items()) if pool != HOST_NAME and size}
