"""A sample of what ``make fuzz`` plays: whatever is read, nothing ends, hangs or fails without a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.case import Place
from fuzz.children import run_child
from fuzz.headers import play_engine
from fuzz.kinds import KINDS
from fuzz.messages import server_of
from fuzz.prepare import prepare
from fuzz.tiny_models import tiny_model

# A machine may be busy: together they take half a minute of processor time.
pytestmark = pytest.mark.timeout(900)

SAMPLES = {
    "headers": range(1, 13),
    "texts": range(1, 3),
    "settings": range(1, 7),
    "messages": range(1, 7),
    "grammars": range(1, 7),
    "heads": range(1, 21),
}
ACCEPTED = {"served", "tokenised", "answered"}


@pytest.fixture(scope="module")
def place(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("fuzz"), weights["smollm2"])
    yield place
    server_of(place).close()


@pytest.mark.parametrize("kind", SAMPLES)
def test_random_cases_end_well_and_are_not_all_refused(kind: str, place: Place) -> None:
    ends = {KINDS[kind](seed, place).how for seed in SAMPLES[kind]}
    assert ends & ACCEPTED


@pytest.mark.parametrize("architecture", ["llama", "mamba", "bert"])
def test_an_undamaged_model_is_served(architecture: str, place: Place) -> None:
    path = place.folder / f"{architecture}.gguf"
    path.write_bytes(tiny_model(architecture).content())
    assert play_engine(prepare({"models": [{"model_id": str(path)}]}), 1, architecture) == "served"


def end(report: object) -> None:
    os.abort()


def hang(report: object) -> None:
    while True:
        pass


def test_a_process_that_ends_or_hangs_is_a_fault() -> None:
    assert "SIGABRT" in run_child(end, cpu_s=5.0).end
    assert run_child(hang, cpu_s=1.0).end == "it computes for ever"
