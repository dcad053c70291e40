"""What a machine has, on machines that a test makes up."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.system.hardware import cpu_quota, has_accelerator, huge_pages, processor, swap


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_first_processor_stands_for_all(tmp_path: Path):
    text = "processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    assert processor(written(tmp_path / "cpuinfo", text)) == ("AMD EPYC 7B13", frozenset({"fpu", "avx2"}))


def test_on_arm_features_have_another_name(tmp_path: Path):
    assert processor(written(tmp_path / "cpuinfo", "Features\t: fp asimddp i8mm\n")) == (
        "",
        frozenset({"fp", "asimddp", "i8mm"}),
    )
    assert processor(tmp_path / "none") == ("", frozenset())


def test_swap_is_told_by_the_kernel(tmp_path: Path):
    assert swap(written(tmp_path / "meminfo", "SwapTotal: 4 kB\nSwapFree: 1 kB\n")) == (4096, 3072)
    assert swap(tmp_path / "none") == (0, 0)


def test_the_smallest_quota_around_the_process_counts(tmp_path: Path):
    own = written(tmp_path / "cgroup", "0::/outer/inner\n")
    written(tmp_path / "sys/outer/cpu.max", "150000 100000\n")
    written(tmp_path / "sys/outer/inner/cpu.max", "max 100000\n")
    written(tmp_path / "sys/cpu.max", "400000 100000\n")
    assert cpu_quota(own, tmp_path / "sys") == 1.5


def test_the_first_version_of_control_groups_has_quotas_too(tmp_path: Path):
    own = written(tmp_path / "cgroup", "9:memory:/x\n4:cpu,cpuacct:/box\n")
    written(tmp_path / "sys/cpu/box/cpu.cfs_quota_us", "50000\n")
    written(tmp_path / "sys/cpu/box/cpu.cfs_period_us", "100000\n")
    written(tmp_path / "sys/cpu/cpu.cfs_quota_us", "-1\n")
    written(tmp_path / "sys/cpu/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(own, tmp_path / "sys") == 0.5


def test_without_control_groups_there_is_no_quota(tmp_path: Path):
    assert cpu_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize("setting", ["always", "madvise", "never"])
def test_the_setting_of_huge_pages_is_the_one_in_brackets(tmp_path: Path, setting: str):
    text = " ".join(f"[{word}]" if word == setting else word for word in ("always", "madvise", "never"))
    assert huge_pages(written(tmp_path / "enabled", text)) == setting
    assert huge_pages(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("file", "is_one"),
    [("nvidiactl", False), ("dri/card0", False), ("nvidia0", True), ("kfd", True), ("dri/renderD128", True)],
)
def test_an_accelerator_is_told_by_its_device_file(tmp_path: Path, file: str, is_one: bool):
    assert not has_accelerator(tmp_path)
    written(tmp_path / file, "")
    assert has_accelerator(tmp_path) == is_one
