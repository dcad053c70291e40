"""A model is tried once, and what came of it is remembered."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.engine.hosts.trial import TrialFailed
from modelyard.engine.hosts.trial_task import TrialLimits, TrialTask
from modelyard.engine.settings import EngineSettings
from modelyard.errors import UnusableModel
from modelyard.protocol.placement import Placement
from modelyard.yard.runtime import trials
from modelyard.yard.runtime.trials import TrialRecords, Trials, trial_key


class Runs:
    """Runs scripted trials, and counts them."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.count = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Event()
        self.was_given_up = threading.Event()

    def __call__(self, _task: TrialTask, report: Callable[[str], bool]) -> None:
        self.count += 1
        self.begun.set()
        while not self.go_on.wait(0.01):
            if not report("loading"):
                self.was_given_up.set()
                raise UnusableModel("The load was given up.")
        if self.outcomes and (outcome := self.outcomes.pop(0)) is not None:
            raise outcome


@pytest.fixture
def task(tmp_path: Path) -> TrialTask:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    settings = EngineSettings("small", (path,), "Q4_0", context_length=512)
    return TrialTask(settings, 100, repacks=True, limits=TrialLimits(1.0, 1.0, 1 << 30))


def check(trials: Trials, task: TrialTask) -> None:
    asyncio.run(trials.check(task, lambda _: None))


def test_a_model_that_passed_is_not_tried_again(tmp_path: Path, task: TrialTask) -> None:
    runs = Runs()
    check(Trials(tmp_path / "trials", runs), task)
    again = Trials(tmp_path / "trials", runs)
    assert asyncio.run(again.is_known(task))
    check(again, task)
    assert runs.count == 1


def test_a_model_that_failed_is_refused_with_the_same_words(tmp_path: Path, task: TrialTask) -> None:
    runs = Runs(TrialFailed("llama.cpp ends its process"))
    for _ in range(2):
        with pytest.raises(UnusableModel, match="ends its process"):
            check(Trials(tmp_path / "trials", runs), task)
    assert runs.count == 1


def test_what_may_go_well_another_time_is_tried_again(tmp_path: Path, task: TrialTask) -> None:
    runs = Runs(UnusableModel("memory ran out"))
    with pytest.raises(UnusableModel, match="ran out"):
        check(Trials(tmp_path / "trials", runs), task)
    check(Trials(tmp_path / "trials", runs), task)
    assert runs.count == 2


def test_another_file_other_settings_or_a_changed_file_are_other_trials(task: TrialTask) -> None:
    path = task.settings.paths[0]
    key = trial_key(task)
    assert trial_key(replace(task, settings=replace(task.settings, kv_type="q8_0"))) != key
    assert trial_key(replace(task, settings=replace(task.settings, chat_template="x", name="other"))) == key
    os.utime(path, ns=(1, 1))
    assert trial_key(task) != key
    key = trial_key(task)
    path.write_bytes(b"Weights")
    os.utime(path, ns=(1, 1))
    assert trial_key(task) != key


def test_placements_on_the_same_kinds_of_devices_have_one_trial(task: TrialTask) -> None:
    def key(**placement: Any) -> str:
        return trial_key(replace(task, settings=replace(task.settings, placement=Placement(**placement))))

    whole = key(devices=("CUDA0",))
    assert whole == key(devices=("CUDA1",)) == key(devices=("CUDA0", "CUDA1"), split=(1.0, 2.0), main_device=1)
    assert whole == key(devices=("CUDA0",), gpu_layers=3)
    others = [key(devices=("Vulkan0",)), key(devices=()), key(), key(devices=("CUDA0",), cpu_moe_layers=3)]
    assert len({whole, *others}) == 5
    assert key(devices=("CUDA0",), cpu_moe_layers=3) == key(devices=("CUDA0",), cpu_moe_layers=7)


def test_another_build_of_the_same_llama_cpp_tries_a_file_again(
    monkeypatch: pytest.MonkeyPatch, task: TrialTask
) -> None:
    before = trial_key(task)
    monkeypatch.setattr(trials, "engine_build", lambda: "libggml-cpu.so:1:2")
    assert trial_key(task) != before


@pytest.mark.parametrize("outcome", [None, TrialFailed("llama.cpp ends its process")])
def test_of_a_file_that_changes_while_it_is_tried_nothing_is_remembered(
    tmp_path: Path, task: TrialTask, outcome: Exception | None
) -> None:
    path = task.settings.paths[0]

    def change(_task: TrialTask, _report: Callable[[str], bool]) -> None:
        path.write_bytes(b"other weights")
        if outcome is not None:
            raise outcome

    before = trial_key(task)
    with pytest.raises(UnusableModel, match="was changed while it was tried"):
        check(Trials(tmp_path / "trials", change), task)
    records = TrialRecords(tmp_path / "trials")
    assert records.find(before) is None
    assert records.find(trial_key(task)) is None


def test_models_on_the_same_file_wait_for_one_trial(tmp_path: Path, task: TrialTask) -> None:
    runs = Runs()

    async def both() -> None:
        trials = Trials(tmp_path / "trials", runs)
        await asyncio.gather(*(trials.check(task, lambda _: None) for _ in range(3)))

    asyncio.run(both())
    assert runs.count == 1


def test_a_load_that_is_given_up_ends_its_trial_and_leaves_nothing_behind(tmp_path: Path, task: TrialTask) -> None:
    runs = Runs()
    runs.go_on.clear()

    async def give_up() -> None:
        trials = Trials(tmp_path / "trials", runs)
        checking = asyncio.create_task(trials.check(task, lambda _: None))
        await asyncio.to_thread(runs.begun.wait, 30)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        assert await asyncio.to_thread(runs.was_given_up.wait, 30)
        assert not await trials.is_known(task)
        runs.go_on.set()
        await trials.check(task, lambda _: None)
        assert await trials.is_known(task)

    asyncio.run(give_up())
    assert runs.count == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"failure": 7}', '{"model": "small"}'])
def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.json").write_text(content)
    assert TrialRecords(tmp_path).find("key") is None


def test_where_nothing_can_be_written_a_model_is_tried_once_in_each_run(tmp_path: Path, task: TrialTask) -> None:
    (tmp_path / "file").write_text("no folder")
    runs = Runs()

    async def twice() -> None:
        trials = Trials(tmp_path / "file" / "trials", runs)
        for _ in range(2):
            await trials.check(task, lambda _: None)

    asyncio.run(twice())
    assert runs.count == 1
    check(Trials(tmp_path / "file" / "trials", runs), task)
    assert runs.count == 2


def test_nothing_is_reported_of_a_trial_that_was_given_up(tmp_path: Path, task: TrialTask) -> None:
    runs = Runs()
    runs.go_on.clear()
    reported: list[str] = []

    async def give_up() -> None:
        checking = asyncio.create_task(Trials(tmp_path / "trials", runs).check(task, reported.append))
        await asyncio.to_thread(runs.begun.wait, 30)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        reported.clear()
        assert await asyncio.to_thread(runs.was_given_up.wait, 30)
        await asyncio.sleep(0)

    asyncio.run(give_up())
    assert reported == []


def test_a_file_that_is_gone_is_named(task: TrialTask) -> None:
    task.settings.paths[0].unlink()
    with pytest.raises(UnusableModel, match=r"model\.gguf cannot be read"):
        trial_key(task)
