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


def test_the_command_keeps_its_arguments_and_its_process_when_it_starts_over() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    command = [sys.executable, "-m", "modelyard", "run", "-m", "no such model.gguf"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no such model.gguf" in said
