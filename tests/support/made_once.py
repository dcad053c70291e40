"""What takes seconds to make, and is only read: made by the first of the processes that test, for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Making takes seconds; on a busy machine, and behind others, minutes.
WAIT_S = 300


def common_folder(paths: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this run of pytest share."""
    base = paths.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(paths: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that ``make`` has filled, in this process or in another one of this run.

    Args:
        paths: pytest's.
        name: of the folder.
        make: gets the folder, which is there and empty.
    """
    folder = common_folder(paths) / name
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock"), timeout=WAIT_S):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
