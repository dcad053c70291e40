"""What models may take of devices, by what is free there, what they have, and what is configured."""

from __future__ import annotations

import pytest

from modelyard.engine.placing import DeviceKind, LlamaDevice
from modelyard.yard.memory.device_budgets import (
    device_budgets,
    have_changed,
    own_pools,
    reserve_bytes,
    resolved_budgets,
)

MIB, GIB = 1 << 20, 1 << 30
CPU = LlamaDevice("CPU", "a processor", "cpu", 5 * GIB, 8 * GIB, "CPU")


def device(
    name: str,
    free: int = 20 * GIB,
    total: int = 24 * GIB,
    kind: DeviceKind = "gpu",
    backend: str = "CUDA",
    hardware_id: str = "",
) -> LlamaDevice:
    return LlamaDevice(name, "a card", kind, free, total, backend, hardware_id)


TWO = (CPU, device("CUDA0", 20 * GIB), device("CUDA1", 10 * GIB))


def test_without_a_configured_budget_a_reserve_stays_free():
    assert device_budgets(TWO, {}, {}) == {
        "CUDA0": 20 * GIB - reserve_bytes(24 * GIB),
        "CUDA1": 10 * GIB - reserve_bytes(24 * GIB),
    }


def test_the_reserve_is_a_part_of_a_large_device_and_256_mib_of_a_small_one():
    assert reserve_bytes(100 * GIB) == 3 * GIB
    assert reserve_bytes(4 * GIB) == 256 * MIB


def test_what_the_models_have_is_part_of_their_budget():
    taken = {"host": GIB, "CUDA0": 4 * GIB}
    assert device_budgets(TWO, {}, taken)["CUDA0"] == 24 * GIB - reserve_bytes(24 * GIB)
    assert device_budgets(TWO, {}, taken)["CUDA1"] == device_budgets(TWO, {}, {})["CUDA1"]


def test_an_error_in_what_the_models_have_does_not_change_what_is_left_for_others():
    left = {device_budgets(TWO, {}, {"CUDA0": taken})["CUDA0"] - taken for taken in (3 * GIB, 4 * GIB)}
    assert len(left) == 1


@pytest.mark.parametrize(
    ("free", "spare"),
    [
        pytest.param(300 * MIB, 300 * MIB - 256 * MIB, id="more than the reserve is free"),
        pytest.param(200 * MIB, 0, id="a part of the reserve is used"),
        pytest.param(128 * MIB, 0, id="half of the reserve is used"),
        pytest.param(100 * MIB, 100 * MIB - 256 * MIB, id="others have taken more: models give it back"),
        pytest.param(0, -256 * MIB, id="nothing is free"),
    ],
)
def test_models_give_memory_back_once_half_of_the_reserve_is_taken(free: int, spare: int):
    small = (device("CUDA0", free, 4 * GIB),)
    assert device_budgets(small, {}, {"CUDA0": GIB})["CUDA0"] == GIB + spare
    assert device_budgets(small, {}, {})["CUDA0"] == max(0, spare)


def test_a_configured_budget_bounds_the_models_and_reserves_nothing():
    assert device_budgets(TWO, {"CUDA0": 5 * GIB}, {})["CUDA0"] == 5 * GIB
    assert device_budgets(TWO, {"CUDA0": 0.5}, {})["CUDA0"] == 12 * GIB
    assert device_budgets(TWO, {"CUDA0": 1.0}, {"CUDA0": 4 * GIB})["CUDA0"] == 24 * GIB


def test_a_configured_budget_is_never_more_than_there_is():
    assert device_budgets(TWO, {"CUDA1": 12 * GIB}, {})["CUDA1"] == 10 * GIB
    assert device_budgets(TWO, {"CUDA1": 12 * GIB}, {"CUDA1": GIB})["CUDA1"] == 11 * GIB
    assert device_budgets((device("CUDA0", 0),), {"CUDA0": GIB}, {"CUDA0": MIB}) == {"CUDA0": MIB}


def test_a_device_that_does_not_report_its_memory_has_the_configured_bytes():
    silent = (device("CANN0", 0, 0, backend="CANN"),)
    assert device_budgets(silent, {}, {}) == {"CANN0": 0}
    assert device_budgets(silent, {"CANN0": 0.5}, {}) == {"CANN0": 0}
    assert device_budgets(silent, {"CANN0": GIB}, {}) == {"CANN0": GIB}


def test_memory_that_is_the_machines_has_no_budget():
    assert own_pools((CPU, device("Metal", backend="Metal"))) == ()
    assert own_pools((CPU, device("MTL0", backend="MTL"))) == ()
    assert own_pools((CPU, device("Vulkan0", kind="igpu", backend="Vulkan"))) == ()


def test_a_device_that_two_backends_drive_counts_once():
    found = (
        device("CUDA0", hardware_id="0000:01:00.0"),
        device("Vulkan0", backend="Vulkan", hardware_id="0000:01:00.0"),
    )
    assert set(device_budgets(found, {}, {})) == {"CUDA0"}


def test_a_device_that_is_gone_has_no_budget():
    assert set(device_budgets(TWO[:2], {"CUDA1": GIB}, {"CUDA1": GIB})) == {"CUDA0"}


def test_configured_devices_are_named_or_numbered():
    assert resolved_budgets((("cuda1", 0.5), ("0", GIB)), TWO).by_pool == {"CUDA1": 0.5, "CUDA0": GIB}
    assert resolved_budgets((), TWO).problems == ()


@pytest.mark.parametrize(
    ("configured", "problem"),
    [
        ((("CUDA7", 0.5),), "names the device 'CUDA7', which does not exist. There are: 0 (CUDA0), 1 (CUDA1)."),
        ((("2", 0.5),), "names the device '2', which does not exist. There are: 0 (CUDA0), 1 (CUDA1)."),
        ((("0", 0.5), ("CUDA0", 0.6)), "has two budgets of CUDA0: '0' and 'CUDA0'. Keep one."),
    ],
)
def test_what_means_no_device_is_a_problem(configured: tuple[tuple[str, float], ...], problem: str):
    assert resolved_budgets(configured, TWO).problems == (f"[memory.devices] {problem}",)


def test_a_budget_of_the_machines_own_memory_is_a_problem():
    (problem,) = resolved_budgets((("Metal", 0.5),), (CPU, device("Metal", backend="Metal"))).problems
    assert "Metal, which has no memory of its own: budget in [memory] bounds" in problem


@pytest.mark.parametrize(
    ("old", "new", "is_changed"),
    [
        ({"CUDA0": 100 * GIB}, {"CUDA0": 100 * GIB - 63 * MIB}, False),
        ({"CUDA0": 100 * GIB}, {"CUDA0": 100 * GIB - 65 * MIB}, True),
        ({"CUDA0": 100 * MIB}, {"CUDA0": 102 * MIB}, True),
        ({"CUDA0": 1000 * MIB}, {"CUDA0": 1009 * MIB}, False),
        ({"CUDA0": 0}, {"CUDA0": 0}, False),
        ({"CUDA0": 0}, {"CUDA0": 1}, True),
        ({"CUDA0": 1, "CUDA1": 1}, {"CUDA0": 1}, True),
        ({}, {"CUDA0": 1}, True),
        ({}, {}, False),
    ],
)
def test_small_changes_are_none(old: dict[str, int], new: dict[str, int], is_changed: bool):
    assert have_changed(old, new) is is_changed
