"""How much memory of each device the loaded models may take. Pure.

The budget of a pool is what all models may take of it together. It follows what other programs take: what is free, and
what the models have, is what there is for them. So an error in what the models are thought to have cancels out: what
the budget leaves for further loads is what is free, less the reserve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from modelyard.engine.placing import LlamaDevice, accelerators
from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.device_pools import pool_of

ConfiguredBudgets: TypeAlias = Sequence[tuple[str, int | float]]
"""Pairs of a device's name or number, and its budget: bytes, or a float for a part of the device's memory."""

RESERVED_PART: Final = 0.03
MIN_RESERVED_BYTES: Final = 256 << 20
"""What loads leave free of a device without a configured budget: drivers take memory for each process that uses it."""

# Smaller changes are none: windows that open and close on a desktop cause no loads and unloads.
_LEAST_CHANGED_PART: Final = 0.01
_LEAST_CHANGED_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class ResolvedBudgets:
    """Configured budgets on the devices of a machine.

    Attributes:
        by_pool: bytes, or a part of the device's memory, by the name of the device's pool.
        problems: what is wrong with them, one sentence for each.
    """

    by_pool: Mapping[str, int | float]
    problems: tuple[str, ...] = ()


def own_pools(found: Sequence[LlamaDevice]) -> tuple[LlamaDevice, ...]:
    """Return the accelerators that have memory of their own, each of which is a pool.

    Integrated devices and Apple's share the machine's memory, which is the host's pool.
    """
    return tuple(device for device in accelerators(found) if pool_of(device) != HOST_NAME)


def resolved_budgets(configured: ConfiguredBudgets, found: Sequence[LlamaDevice]) -> ResolvedBudgets:
    """Return the configured budgets by pool.

    Args:
        configured: as ``[memory.devices]`` has them. Numbers count the accelerators, from 0.
        found: all devices of the machine.
    """
    existing = accelerators(found)
    names = {device.name.lower(): device.name for device in existing}
    names |= {str(number): device.name for number, device in enumerate(existing)}
    pools = {device.name for device in own_pools(found)}
    listed = ", ".join(f"{number} ({device.name})" for number, device in enumerate(existing)) or "none"
    by_pool: dict[str, int | float] = {}
    written: dict[str, str] = {}
    problems = []
    for key, budget in configured:
        name = names.get(key.strip().lower())
        if name is None:
            problems.append(f"[memory.devices] names the device '{key}', which does not exist. There are: {listed}.")
        elif name not in pools:
            problems.append(
                f"[memory.devices] names {name}, which has no memory of its own: budget in [memory] bounds what models "
                "take of the machine's."
            )
        elif name in by_pool:
            problems.append(f"[memory.devices] has two budgets of {name}: '{written[name]}' and '{key}'. Keep one.")
        else:
            by_pool[name], written[name] = budget, key
    return ResolvedBudgets(by_pool, tuple(problems))


def device_budgets(
    found: Sequence[LlamaDevice], configured: Mapping[str, int | float], taken: Mapping[str, int]
) -> dict[str, int]:
    """Return what models may take of each pool, in bytes. A device that is not listed has no budget.

    A configured budget bounds what the models take, as far as other programs leave it. Without one, loads leave a
    reserve free, and loaded models give memory back once other programs have taken half of the reserve.

    Args:
        found: all devices of the machine, with their memory.
        configured: bytes, or parts of the memory, by pool.
        taken: bytes that the models take of each pool by the books of the residency.
    """
    budgets = {}
    for device in own_pools(found):
        ours = taken.get(device.name, 0)
        configured_bytes = _bytes_of(configured.get(device.name), device.total_bytes)
        if not device.total_bytes:
            # It does not report its memory, so the configuration alone can say how much there is.
            budgets[device.name] = configured_bytes or 0
        elif configured_bytes is None:
            budgets[device.name] = max(0, ours + _spare_bytes(device))
        else:
            budgets[device.name] = min(configured_bytes, ours + device.free_bytes)
    return budgets


def reserve_bytes(total_bytes: int) -> int:
    """Return what loads leave free of a device with ``total_bytes`` for which no budget is configured."""
    return max(int(RESERVED_PART * total_bytes), MIN_RESERVED_BYTES)


def _spare_bytes(device: LlamaDevice) -> int:
    """Return the bytes that models may take beside what they have; below 0: that they should give back."""
    reserve = reserve_bytes(device.total_bytes)
    spare = device.free_bytes - reserve
    # What a load takes beyond its prediction comes out of the reserve, and must not unload the model again.
    return 0 if spare < 0 and device.free_bytes >= reserve // 2 else spare


def _bytes_of(budget: int | float | None, total_bytes: int) -> int | None:
    return int(budget * total_bytes) if isinstance(budget, float) else budget


def have_changed(old: Mapping[str, int], new: Mapping[str, int]) -> bool:
    """Whether budgets differ by so much that loads or unloads may follow: by 1 % or 64 MiB, or in their devices."""
    return old.keys() != new.keys() or any(_differ(old[pool], new[pool]) for pool in new)


def _differ(old: int, new: int) -> bool:
    change = abs(new - old)
    return change > _LEAST_CHANGED_BYTES or change > _LEAST_CHANGED_PART * max(old, new)
