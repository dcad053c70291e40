"""Checks of several models at once, whose problems are reported together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from modelyard.engine.placing import LlamaDevice, resolve
from modelyard.errors import UnusableModel, UnusableModels
from modelyard.protocol.placement import Placement
from modelyard.yard.memory.device_budgets import own_pools
from modelyard.yard.memory.device_pools import pool_of
from modelyard.yard.runtime.model_spec import ModelSpec
from modelyard.yard.runtime.placements import needs_devices, placement_of

_T = TypeVar("_T")


async def side_by_side(ids: Mapping[str, str], work: Callable[[str], Coroutine[Any, Any, _T]]) -> dict[str, _T]:
    """Return the outcomes of ``work`` for all models.

    Args:
        ids: the ids of the models, by their names in the residency.
        work: is called with each name.

    Raises:
        UnusableModels: some of them are unusable; the error lists each problem.
    """
    tasks = {name: asyncio.create_task(work(name), name=f"check {name}") for name in ids}
    outcomes, problems = {}, []
    try:
        for name, task in tasks.items():
            try:
                outcomes[name] = await task
            except UnusableModel as unusable:
                problems.append(f"model '{ids[name]}': {unusable}")
    finally:
        for task in tasks.values():
            task.cancel()
    if problems:
        raise UnusableModels("", problems)
    return outcomes


def misplaced(specs: Iterable[ModelSpec], devices: Sequence[LlamaDevice] = ()) -> list[str]:
    """Return one problem for each model that is put on a device that does not exist, or that has no budget.

    Args:
        specs: the models.
        devices: of the machine; (): llama.cpp is asked for them, in this process.
    """
    problems = ((spec, misplacement(spec, lambda placement: _resolve(placement, devices))) for spec in specs)
    return [f"model '{spec.model.id}': {problem}" for spec, problem in problems if problem]


def misplacement(spec: ModelSpec, resolved: Callable[[Placement], None]) -> str:
    """Return why a model cannot be where its configuration puts it; "" where it can.

    ``resolved`` looks for the devices of a placement, and raises UnusableModel where one does not exist.
    """
    placement = placement_of(spec.config, spec.model)
    if needs_devices(placement):
        try:
            resolved(placement)
        except UnusableModel as unusable:
            return str(unusable)
    return ""


def resolve_among(placement: Placement, devices: Sequence[LlamaDevice]) -> None:
    """Refuse a placement on devices that are not among ``devices``, or whose memory is the pool of another one.

    Raises:
        UnusableModel: it names such a device.
    """
    names = resolve(placement, devices, lambda: "`modelyard doctor` shows why there are none.").devices or ()
    pools = {device.name: device.hardware_id for device in own_pools(devices)}
    for device in devices:
        if device.name in names and device.name not in pools and pool_of(device) == device.name:
            twin = next((name for name, hardware in pools.items() if hardware == device.hardware_id), "")
            raise UnusableModel(
                f"devices names {device.name}, which is the same hardware as {twin}, and budgets are kept for the "
                f"first of them. Write {twin}."
            )


def _resolve(placement: Placement, devices: Sequence[LlamaDevice]) -> None:
    if devices:
        resolve_among(placement, devices)
        return
    # Imported here, because it loads llama.cpp.
    from modelyard.engine.llama import resolve_here

    resolve_here(placement)
