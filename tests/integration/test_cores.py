"""The threads that compute for an engine, beside others that compute, and once it has nothing to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from modelyard.engine.scheduling.fair_share import Device
from modelyard.protocol.requests import Cancel, Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")

WAIT_S = 20.0


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def await_threads(expected: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while threads() != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() == expected


def idle_engine_keeps_no_threads(weights: Path) -> None:
    driven = Driven(weights, device=Device(cores=3))
    driven.answer("Once upon a time")
    for number in (1, 2):
        driven.submit(number, "Once upon a time", max_tokens=200)
        driven.until(lambda number=number: SequenceId(number) in driven.texts)
        computing = threads()
        driven.send(Cancel(SequenceId(number)))
        await_threads(computing - 2)
    driven.stopped(Stop())


def engine_beside_another_computes_the_same(weights: Path) -> None:
    device = Device(cores=2)
    both = [Driven(weights, name=name, device=device) for name in ("one", "other")]
    alone = [driven.answer("Once upon a time") for driven in both]
    for driven in both:
        driven.submit(1, "Once upon a time")
    for driven in both:
        driven.finished(1)
    assert [driven.texts[SequenceId(1)] for driven in both] == alone
    for driven in both:
        driven.stopped(Stop())


@pytest.mark.parametrize("holds", [idle_engine_keeps_no_threads, engine_beside_another_computes_the_same])
def test_engines_on_several_threads(
    holds: Callable[[Path], None], drawn_weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # OpenMP reads the limit that tests have once, when it is loaded.
    monkeypatch.delenv("OMP_THREAD_LIMIT")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(holds, drawn_weights["smollm2"]).result(4 * WAIT_S)
