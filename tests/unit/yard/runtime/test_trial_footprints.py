"""What a trial takes counts for the host, in each placement whose trial is still to come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from modelyard.engine.hosts.trial_task import PROCESS_BYTES, TrialTask
from modelyard.engine.settings import EngineSettings
from modelyard.hub import ModelFiles, read_header
from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.runtime.model_spec import SpecFiles
from modelyard.yard.runtime.trial_footprints import with_trials
from support.gguf_writer import tiny_model, write


class Known:
    """Trials of placements on the host are known."""

    def __init__(self) -> None:
        self.asked: list[Placement] = []

    async def is_known(self, task: TrialTask) -> bool:
        self.asked.append(task.settings.placement)
        return not task.settings.placement.uses_devices


async def test_a_trial_on_devices_takes_memory_of_the_host_and_is_looked_for_once(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_model())
    header = read_header(path)
    files = SpecFiles(ModelFiles((path,), header, header.file_size, "", "F16"), None)
    settings = EngineSettings("tiny", (path,), "F16")
    placements = [Placement(devices=("CUDA0",)), Placement(devices=("CUDA1",)), ON_HOST]
    choices = tuple(Footprint("k", 100, 50, placement=each) for each in placements)
    known: Any = Known()

    def place(placement: Placement) -> EngineSettings:
        return replace(settings, placement=placement)

    first, second, host = await with_trials(choices, files, place, known, 1 << 30)
    assert first.context_bytes == second.context_bytes > PROCESS_BYTES
    assert host.context_bytes == 50
    assert known.asked == [placements[0], ON_HOST]
    # A model that fits only just is still tried.
    assert (await with_trials(choices[:1], files, place, known, 400))[0].host_bytes == 400
