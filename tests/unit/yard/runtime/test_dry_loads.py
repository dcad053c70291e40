"""What llama.cpp plans is asked for once, without blocking the event loop, and can be given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import DeviceBytes, PlacedBytes, Placement
from modelyard.yard.runtime import dry_loads
from modelyard.yard.runtime.dry_loads import DryLoads

MAX_WAIT_S = 30.0
PLANNED = {"CUDA0": DeviceBytes(1, 2, 3)}
SETTINGS = EngineSettings("a", (Path("a.gguf"),), "Q4_K", placement=Placement(devices=("CUDA0",)))


def planning(outcome: PlacedBytes | None) -> tuple[DryLoads, list[EngineSettings]]:
    asked: list[EngineSettings] = []

    def run(settings: EngineSettings, *, goes_on: Callable[[], bool]) -> PlacedBytes | None:
        assert goes_on()
        asked.append(settings)
        return outcome

    return DryLoads(run), asked


@pytest.mark.parametrize("outcome", [PLANNED, None])
async def test_a_model_is_planned_once_by_whatever_name_and_for_each_placement(outcome: PlacedBytes | None) -> None:
    loads, asked = planning(outcome)
    assert loads.known(SETTINGS) is None
    assert await loads.find(SETTINGS) == outcome
    assert await loads.find(replace(SETTINGS, name="b", weight=3.0, chat_template="x")) is None
    assert loads.known(replace(SETTINGS, draft=(Path("d.gguf"),))) == outcome
    assert len(asked) == 1
    for other in (
        replace(SETTINGS, placement=Placement(devices=("CUDA1",))),
        replace(SETTINGS, context_length=4096),
        replace(SETTINGS, paths=(Path("b.gguf"),)),
    ):
        assert await loads.find(other) == outcome
    assert len(asked) == 4


async def test_two_loads_at_once_share_a_plan() -> None:
    loads, asked = planning(PLANNED)
    found = await asyncio.gather(loads.find(SETTINGS), loads.find(SETTINGS))
    assert sorted(found, key=lambda each: each is None) == [PLANNED, None]
    assert len(asked) == 1


async def test_where_llama_cpp_cannot_plan_the_prediction_counts() -> None:
    asked = []

    def refuse(settings: EngineSettings, **_: Any) -> PlacedBytes | None:
        asked.append(settings)
        raise UnusableModel("It cannot be read.")

    loads = DryLoads(refuse)
    assert await loads.find(SETTINGS) is None
    assert await loads.find(SETTINGS) is None
    assert len(asked) == 1


async def test_a_plan_that_is_given_up_ends_and_is_made_again() -> None:
    has_begun, has_ended = threading.Event(), threading.Event()

    def run(_: EngineSettings, *, goes_on: Callable[[], bool]) -> PlacedBytes | None:
        if has_ended.is_set():
            return PLANNED
        has_begun.set()
        while goes_on():
            threading.Event().wait(0.01)
        has_ended.set()
        raise UnusableModel("It was ended.")

    loads = DryLoads(run)
    finding = asyncio.create_task(loads.find(SETTINGS))
    assert await asyncio.to_thread(has_begun.wait, MAX_WAIT_S)
    finding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finding
    assert await asyncio.to_thread(has_ended.wait, MAX_WAIT_S)
    assert await loads.find(SETTINGS) == PLANNED


async def test_old_plans_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_loads, "MAX_KNOWN", 2)
    loads, asked = planning(PLANNED)
    for length in (256, 512, 768):
        await loads.find(replace(SETTINGS, context_length=length))
    assert loads.known(replace(SETTINGS, context_length=256)) is None
    assert loads.known(replace(SETTINGS, context_length=768)) == PLANNED
    assert len(asked) == 3
