"""What the end of an engine records, and what it reports of its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Died, Dying, Event, FileWrittenOver, Loaded, ParkedWeightsLost, Stopped
from modelyard.protocol.model_info import ModelProfile
from modelyard.system.file_digest import contents_digest
from modelyard.system.file_stamp import stamps_of
from modelyard.yard.runtime.engine_hosts import _ObservedEngine
from modelyard.yard.runtime.file_watch import FileWatch
from modelyard.yard.runtime.isolation import IsolationRecords

PROFILE = ModelProfile(512, "Q4_0", 7, "fp", can_chat=False, weights_bytes=7, context_bytes=1)
SIGBUS = "its process was ended by SIGBUS"


class Observation:
    """An engine in a process, and the events that the yard receives; its files are checked only with an event."""

    def __init__(self, folder: Path, watch: FileWatch) -> None:
        self.file = folder / "m.gguf"
        self.file.write_bytes(b"weights")
        self.published: list[Event] = []
        self.records = IsolationRecords(folder / "isolation")
        settings = EngineSettings("m", (self.file,), "Q4_0", files=stamps_of([self.file]))
        self.engine = _ObservedEngine(settings, self.published.extend, self.records, watch, is_isolated=True)

    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.published]


@pytest.fixture
def observation(tmp_path: Path) -> Iterator[Observation]:
    watch = FileWatch(interval_s=60.0)
    yield Observation(tmp_path, watch)
    watch.close()


def test_an_engine_that_dies_of_a_file_says_so_first_and_is_not_held_against_the_model(
    observation: Observation,
) -> None:
    observation.engine.publish([Loaded(PROFILE)])
    os.truncate(observation.file, 3)
    observation.engine.publish([Dying(SIGBUS), Died(SIGBUS)])
    assert observation.published[1:] == [FileWrittenOver("m.gguf"), Dying(SIGBUS), Died(SIGBUS)]
    assert observation.records.find(contents_digest([observation.file])) is None


def test_an_engine_that_dies_of_something_else_is_remembered(observation: Observation) -> None:
    observation.engine.publish([Loaded(PROFILE)])
    observation.engine.publish([Dying(SIGBUS), Died(SIGBUS)])
    assert observation.kinds() == [Loaded, Dying, Died]
    assert observation.records.find(contents_digest([observation.file])) is not None


def test_parked_weights_are_watched_until_they_are_released(observation: Observation) -> None:
    class Weights:
        def release(self) -> None:
            """Gone."""

    observation.engine.publish([Stopped(parked=Weights())])
    (stopped,) = observation.published
    assert isinstance(stopped, Stopped)
    assert not observation.engine.files().is_over
    assert stopped.parked is not None
    stopped.parked.release()
    assert observation.engine.files().is_over


@pytest.mark.parametrize("last", [Stopped(), Died(SIGBUS), ParkedWeightsLost(SIGBUS)])
def test_the_files_of_an_engine_that_is_gone_are_not_watched(observation: Observation, last: Event) -> None:
    observation.engine.publish([last])
    assert observation.engine.files().is_over
