"""How engines that compute at the same time divide the cores."""

from __future__ import annotations

import time

import pytest

from modelyard.engine.scheduling.cores import threads_of
from modelyard.engine.scheduling.engine_table import EngineTable
from modelyard.engine.scheduling.fair_share import RECENT_S, Device


def threads(usable: list[int], cores: int, turn: int = 0) -> list[int]:
    return [threads_of(place, usable, cores, turn) for place in range(len(usable))]


@pytest.mark.parametrize(
    ("engines", "cores", "each"),
    [(1, 2, [2]), (2, 2, [1, 1]), (4, 2, [1] * 4), (2, 16, [8, 8]), (3, 16, [6, 5, 5]), (1, 1, [1])],
)
def test_all_cores_are_used_and_none_twice(engines: int, cores: int, each: list[int]) -> None:
    assert threads([cores] * engines, cores) == each


def test_cores_that_are_left_over_go_to_the_engines_in_turn() -> None:
    assert [threads([3, 3], 3, turn) for turn in range(3)] == [[2, 1], [1, 2], [2, 1]]
    assert [sum(one) for one in zip(*(threads([8] * 3, 8, turn) for turn in range(3)), strict=True)] == [8, 8, 8]


def test_an_engine_on_accelerators_takes_one_core() -> None:
    assert threads([1, 8], 8) == [1, 7]
    assert threads([1, 2, 1], 2) == [1, 1, 1]


def test_an_engine_counts_while_it_computes_and_shortly_after() -> None:
    device = Device(cores=4)
    one, other = (device.make_share(1.0, 0, is_on_host=True) for _ in range(2))
    with device.joined(one), device.joined(other) as record:
        assert device.threads(one) == 4
        record.begin_step([1], 1)
        assert device.threads(one) == 2
        record.end_step()
        assert device.threads(one) == 4
        with device.step(other):
            pass
        assert device.threads(one) == 2
        other.last_step = time.monotonic() - RECENT_S
        assert device.threads(one) == 4


def test_engines_in_other_processes_count() -> None:
    table = EngineTable()
    here, there = Device(table, cores=4), Device(table, cores=4)
    one, other = (device.make_share(1.0, 0, is_on_host=True) for device in (here, there))
    with here.joined(one), there.joined(other):
        with there.step(other):
            pass
        assert here.threads(one) == 2


def test_a_model_on_accelerators_leaves_the_other_cores_to_others() -> None:
    device = Device(cores=4)
    on_host, on_devices = (device.make_share(1.0, 0, is_on_host=is_on_host) for is_on_host in (True, False))
    with device.joined(on_host), device.joined(on_devices):
        for share in (on_host, on_devices):
            with device.step(share):
                pass
        assert (device.threads(on_host), device.threads(on_devices)) == (3, 1)
