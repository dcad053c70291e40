"""The cores that a process may use, within its affinity mask and its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.system.cores import usable_cores

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
