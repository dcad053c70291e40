"""Checks of several models at once, whose problems are reported together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from modelyard.engine.placing import LlamaDevice, resolve
from modelyard.errors import UnusableModel, UnusableModels
from modelyard.protocol.placement import Placement
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
    """Return one problem for each model that is put on a device that does not exist.

    Args:
        specs: the models.
        devices: of the machine; (): llama.cpp is asked for them, in this process.
    """
    problems = []
    for spec in specs:
        placement = placement_of(spec.config, spec.model)
        if not needs_devices(placement):
            continue
        try:
            _resolve(placement, devices)
        except UnusableModel as unusable:
            problems.append(f"model '{spec.model.id}': {unusable}")
    return problems


def _resolve(placement: Placement, devices: Sequence[LlamaDevice]) -> None:
    if devices:
        resolve(placement, devices)
        return
    # Imported here, because it loads llama.cpp.
    from modelyard.engine.llama import resolve_here

    resolve_here(placement)
