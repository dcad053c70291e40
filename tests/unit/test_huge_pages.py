"""The command line asks glibc for huge pages, once, where the kernel has them on demand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.__main__ import with_huge_pages

ASKED = "glibc.malloc.hugetlb=1"


@pytest.fixture
def on_demand(tmp_path: Path) -> Path:
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    return path


@pytest.mark.parametrize(
    ("tunables", "asked"), [("", ASKED), ("glibc.malloc.check=1", f"glibc.malloc.check=1:{ASKED}")]
)
def test_it_is_added_to_what_the_environment_asks_for(on_demand: Path, tunables: str, asked: str) -> None:
    assert with_huge_pages(tunables, on_demand) == asked


@pytest.mark.parametrize("value", ["0", "1", "2"])
def test_what_the_environment_says_of_it_holds(on_demand: Path, value: str) -> None:
    assert with_huge_pages(f"glibc.malloc.hugetlb={value}", on_demand) is None


@pytest.mark.parametrize("enabled", ["[always] madvise never", "always madvise [never]", None])
def test_where_the_kernel_decides_otherwise_nothing_is_asked_for(tmp_path: Path, enabled: str | None) -> None:
    path = tmp_path / "enabled"
    if enabled is not None:
        path.write_text(enabled)
    assert with_huge_pages("", path) is None


def test_the_command_starts_over_once_with_its_arguments_as_the_same_process() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    script = "import os, modelyard.__main__ as m; print(os.getpid(), os.environ.get('GLIBC_TUNABLES')); m.main()"
    command = [sys.executable, "-u", "-c", script, "--version"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        said, _ = process.communicate(timeout=60)
    *starts, version = said.splitlines()
    tunables = ["None", ASKED] if with_huge_pages("") else ["None"]
    assert starts == [f"{process.pid} {asked}" for asked in tunables]
    assert version.startswith("modelyard ")
