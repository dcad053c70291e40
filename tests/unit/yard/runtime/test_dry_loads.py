"""Plans of what models take are made once, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.engine.hosts.dry_load import DryLoad
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.placement import ON_HOST, DeviceBytes, PlacedBytes, Placement
from modelyard.yard.runtime.dry_loads import DryLoads
from support.gguf_writer import tiny_model, write

PLACED = {"CUDA0": DeviceBytes(4, 3, 2), "host": DeviceBytes(1, 0, 1, 7)}


class Planner:
    """Counts the plans that are made."""

    def __init__(self, found: PlacedBytes | None = PLACED) -> None:
        self.tasks: list[DryLoad] = []
        self.found = found

    def run(self, task: DryLoad, _goes_on: Callable[[], bool]) -> PlacedBytes | None:
        self.tasks.append(task)
        return self.found


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    return EngineSettings("tiny", (write(tmp_path / "tiny.gguf", tiny_model()),), "F32")


async def test_a_plan_is_made_once_also_after_a_restart(settings: EngineSettings, tmp_path: Path) -> None:
    planner = Planner()
    first = DryLoads(tmp_path / "plans", planner.run)
    assert await first.bytes_of(settings, ON_HOST) == PLACED
    assert await first.bytes_of(replace(settings, name="other", chat_template="x"), ON_HOST) == PLACED
    assert await DryLoads(tmp_path / "plans", planner.run).bytes_of(settings, ON_HOST) == PLACED
    assert len(planner.tasks) == 1


@pytest.mark.parametrize(
    "changes", [{"context_length": 512}, {"kv_type": "q8_0"}, {"max_seqs": 3}, {"flash_attn": False}]
)
async def test_other_settings_have_another_plan(
    settings: EngineSettings, tmp_path: Path, changes: dict[str, object]
) -> None:
    planner = Planner()
    plans = DryLoads(tmp_path / "plans", planner.run)
    await plans.bytes_of(settings, ON_HOST)
    await plans.bytes_of(replace(settings, **changes), ON_HOST)  # type: ignore[arg-type]
    assert len(planner.tasks) == 2


async def test_another_place_has_another_plan(settings: EngineSettings, tmp_path: Path) -> None:
    planner = Planner()
    plans = DryLoads(tmp_path / "plans", planner.run)
    for placement in (ON_HOST, Placement(devices=("CUDA0",)), Placement(devices=("CUDA0",), gpu_layers=3)):
        await plans.bytes_of(settings, placement)
    assert [task.settings.placement.devices for task in planner.tasks] == [(), ("CUDA0",), ("CUDA0",)]


async def test_another_file_has_another_plan(settings: EngineSettings, tmp_path: Path) -> None:
    planner = Planner()
    plans = DryLoads(tmp_path / "plans", planner.run)
    await plans.bytes_of(settings, ON_HOST)
    write(settings.paths[0], tiny_model({"llama.context_length": (4, 256)}))
    await plans.bytes_of(settings, ON_HOST)
    assert len(planner.tasks) == 2


async def test_what_is_unknown_is_asked_again(settings: EngineSettings, tmp_path: Path) -> None:
    planner = Planner(None)
    plans = DryLoads(tmp_path / "plans", planner.run)
    assert await plans.bytes_of(settings, ON_HOST) is None
    assert await plans.bytes_of(settings, ON_HOST) is None
    assert len(planner.tasks) == 2


async def test_a_plan_that_cannot_be_read_is_made_again(settings: EngineSettings, tmp_path: Path) -> None:
    planner = Planner()
    await DryLoads(tmp_path / "plans", planner.run).bytes_of(settings, ON_HOST)
    (kept,) = (tmp_path / "plans").iterdir()
    kept.write_text('{"bytes": {"host": ["many"]}}')
    assert await DryLoads(tmp_path / "plans", planner.run).bytes_of(settings, ON_HOST) == PLACED
    assert len(planner.tasks) == 2
