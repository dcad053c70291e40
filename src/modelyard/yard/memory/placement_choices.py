"""The placements that a model may have, by its configuration and the devices of the machine. Pure.

Divisions over devices are whole layers in fixed numbers, so that a placement takes the same memory each time, and
models on the same files in the same placement share their weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice
from typing import Final

from modelyard.engine.placing import LlamaDevice
from modelyard.protocol.placement import HOST_NAME, ON_HOST, Placement

MAX_CHOICES: Final = 40
"""Placements of one model: each is predicted when it is sized, and weighed when it is loaded."""

MAX_TOGETHER: Final = 4
"""Devices of which all groups are tried. Of more devices, all together are one group more."""

_MAX_GROUPS: Final = 12
_MAX_SINGLE_BASES: Final = 4

# Parts of the layers on devices, the most useful first: where few choices are left, the finer ones are missing.
_LAYER_PARTS: Final = (4 / 8, 6 / 8, 2 / 8, 7 / 8, 5 / 8, 3 / 8, 1 / 8)
_EXPERT_PARTS: Final = (4 / 4, 2 / 4, 3 / 4, 1 / 4)
_UNEVEN_PARTS: Final = (3 / 4, 1 / 4)


def placement_choices(
    configured: Placement, devices: Sequence[LlamaDevice], *, layers: int, has_experts: bool, is_divisible: bool = True
) -> tuple[Placement, ...]:
    """Return all placements to consider: whole on devices, then in part, and the host alone as the last.

    What is configured is kept. Where more than ``devices``, ``mlock``, ``mmap`` and ``kv_on_host`` is, the host alone
    is no choice.

    Args:
        configured: with names of devices, as ``engine.placing.resolve`` returns it.
        devices: with their memory, those of ``configured`` at least.
        layers: of the model, the output not counted.
        has_experts: whether there are experts to leave on the host.
        is_divisible: whether a part of the model may be elsewhere, unless that is configured.
    """
    names = configured.devices or ()
    if not names:
        return (configured,)
    if not has_experts:
        # Then ``n_cpu_moe`` means nothing.
        configured = replace(configured, cpu_moe_layers=0)
    sizes = {device.name: device.total_bytes for device in devices}
    if has_fixed_division(configured):
        return (_divided(configured, names, sizes, layers),)
    if is_divisible:
        on_devices = dict.fromkeys(_on_devices(configured, sizes, layers, has_experts=has_experts))
    else:
        on_devices = dict.fromkeys(replace(configured, devices=(name,)) for name in names)
    chosen = list(islice(on_devices, MAX_CHOICES - 1))
    return (*chosen, *((_on_host(configured),) if may_use_host_alone(configured) else ()))


def has_fixed_division(configured: Placement) -> bool:
    """Whether the configuration says how devices share a model, so that all of them are used as it says."""
    return (
        any(configured.split)
        or configured.split_mode != "layer"
        or configured.main_device > 0
        or any(place != HOST_NAME for _, place in configured.tensor_overrides)
    )


def may_use_host_alone(configured: Placement) -> bool:
    """Whether a model may be put on the host alone where devices have no room: the configuration asks for no other."""
    return not has_fixed_division(configured) and not _has_fixed_parts(configured)


def _has_fixed_parts(configured: Placement) -> bool:
    """Whether the configuration says which part of the model is on the host."""
    return configured.gpu_layers is not None or bool(configured.cpu_moe_layers or configured.tensor_overrides)


def _on_host(configured: Placement) -> Placement:
    return replace(ON_HOST, mlock=configured.mlock, mmap=configured.mmap)


def _on_devices(
    configured: Placement, sizes: Mapping[str, float], layers: int, *, has_experts: bool
) -> Iterator[Placement]:
    """Yield the placements with devices, those that matter most first."""
    names = configured.devices or ()
    groups = _groups(names)
    for group in groups:
        yield _divided(configured, group, sizes, layers)
    if not _has_fixed_parts(configured):
        bases = groups[: min(len(names), _MAX_SINGLE_BASES)]
        if len(names) > 1:
            bases.append(groups[-1])
        if has_experts:
            for part in _EXPERT_PARTS:
                for group in bases:
                    yield replace(_divided(configured, group, sizes, layers), cpu_moe_layers=max(1, int(layers * part)))
        for part in _LAYER_PARTS:
            for group in bases:
                count = int((layers + 1) * part)
                if count >= len(group):
                    yield _divided(replace(configured, gpu_layers=count), group, sizes, layers)
    for group in groups:
        if len(group) == 2:
            for part in _UNEVEN_PARTS:
                uneven = {group[0]: part, group[1]: 1 - part}
                yield _divided(configured, group, uneven, layers)


def _groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of devices that share a model, the smaller first and that of all last."""
    groups: list[tuple[str, ...]] = [(name,) for name in names]
    for count in range(2, min(len(names), MAX_TOGETHER) + 1):
        together = list(combinations(names, count))
        if len(together) > _MAX_GROUPS:
            together = [tuple(names[first : first + count]) for first in range(len(names) - count + 1)]
        groups += together
    if len(names) > MAX_TOGETHER:
        groups.append(tuple(names))
    return groups


def _divided(configured: Placement, group: Sequence[str], sizes: Mapping[str, float], layers: int) -> Placement:
    """Return the placement on a group of devices, each with whole layers by its size, unless the parts are fixed."""
    placement = replace(configured, devices=tuple(group))
    if len(group) < 2 or any(configured.split) or configured.split_mode == "none":
        return placement
    count = layers + 1 if configured.gpu_layers is None else min(configured.gpu_layers, layers + 1)
    parts = _whole_parts(count, [sizes.get(name, 0) for name in group])
    return replace(placement, split=tuple(map(float, parts)))


def _whole_parts(count: int, sizes: Sequence[float]) -> list[int]:
    """Divide ``count`` layers by sizes, with one for each at least where there are enough."""
    spare = max(0, count - len(sizes))
    whole = sum(sizes)
    exact = [spare * size / whole if whole else spare / len(sizes) for size in sizes]
    parts = [int(each) for each in exact]
    by_rest = sorted(range(len(sizes)), key=lambda at: (parts[at] - exact[at], at))
    for at in by_rest[: spare - sum(parts)]:
        parts[at] += 1
    return [part + (at < count) for at, part in enumerate(parts)]
