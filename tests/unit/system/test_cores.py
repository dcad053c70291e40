"""The cores that a process may use, within its affinity mask and its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.system.cores import compute_cores, usable_cores

CORES = len(os.sched_getaffinity(0))


def cores_with(folder: Path, **quotas: str) -> int:
    """The cores of a process in the group /outer/inner: ``quotas`` are the cpu.max of "root", "outer" and "inner"."""
    own, groups = folder / "own", folder / "groups"
    own.write_text("0::/outer/inner\n")
    places = {"root": groups, "outer": groups / "outer", "inner": groups / "outer/inner"}
    for name, quota in quotas.items():
        places[name].mkdir(parents=True, exist_ok=True)
        (places[name] / "cpu.max").write_text(quota)
    return usable_cores(own, groups)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", CORES),
        ("100000 100000", 1),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("99900000 100000", CORES),
        ("nonsense", CORES),
        ("", CORES),
    ],
)
@pytest.mark.parametrize("group", ["root", "outer", "inner"])
def test_a_quota_of_any_group_around_the_process_bounds_the_cores(
    tmp_path: Path, group: str, quota: str, expected: int
) -> None:
    assert cores_with(tmp_path, **{group: quota}) == expected


def test_the_smallest_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert cores_with(tmp_path, root="800000 100000", outer="300000 100000", inner="500000 100000") == 3


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "missing", tmp_path) == CORES


def test_the_affinity_mask_bounds_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert cores_with(tmp_path, inner="300000 100000\n") == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert cores_with(tmp_path, inner="300000 100000\n") == 1


def test_where_the_system_knows_no_affinity_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path / "missing", tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path / "missing", tmp_path) == 1


def processors(folder: Path, siblings: dict[int, str], fast: str = "") -> Path:
    """Linux's description of a machine: for each processor, those that share its core."""
    for number, listing in siblings.items():
        place = folder / f"system/cpu/cpu{number}/topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{listing}\n")
    if fast:
        (folder / "cpu_core").mkdir()
        (folder / "cpu_core/cpus").write_text(f"{fast}\n")
    return folder


def computing(monkeypatch: pytest.MonkeyPatch, folder: Path, allowed: set[int]) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    return compute_cores(folder / "missing", folder / "missing", folder)


def test_two_processors_of_one_core_compute_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processors(tmp_path, {number: f"{number % 4},{number % 4 + 4}" for number in range(8)})
    assert computing(monkeypatch, tmp_path, set(range(8))) == 4
    assert computing(monkeypatch, tmp_path, {0, 4}) == 1
    assert computing(monkeypatch, tmp_path, {0, 1, 5}) == 2


def test_efficiency_cores_do_not_compute_unless_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    siblings = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5", 6: "6", 7: "7"}
    processors(tmp_path, siblings, fast="0-3")
    assert computing(monkeypatch, tmp_path, set(range(8))) == 2
    assert computing(monkeypatch, tmp_path, {5, 6}) == 2


@pytest.mark.parametrize("fast", ["nonsense", "", "9-12"])
def test_without_a_description_each_processor_is_a_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: str
) -> None:
    processors(tmp_path, {}, fast)
    assert computing(monkeypatch, tmp_path, set(range(6))) == 6


def test_a_quota_bounds_the_cores_that_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processors(tmp_path, {number: str(number) for number in range(8)})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    own, groups = tmp_path / "own", tmp_path / "groups"
    own.write_text("0::/\n")
    groups.mkdir()
    (groups / "cpu.max").write_text("300000 100000")
    assert compute_cores(own, groups, tmp_path) == 3
