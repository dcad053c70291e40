"""What the tests of conversions share: a checkpoint in full precision, and each conversion of it done once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint import make

from modelyard.hub import ConvertedModels, FileRequest, ModelFiles, Stores, resolve
from support.checkpoints import random_checkpoint
from support.made_once import common_folder, made_once

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def checkpoint(weights: dict[str, Path]) -> Path:
    """SmolLM2 in full precision, in the layout of the hub."""
    return make(weights["smollm2"], ROOT / ".weights")


@pytest.fixture(scope="session")
def tiny_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a few megabytes, with the same tokenizer: its conversion takes as long as torch to start."""

    def make(folder: Path) -> None:
        random_checkpoint(folder / "Tiny", checkpoint, vocabulary=49152, width=128)

    return made_once(tmp_path_factory, "tiny", make) / "Tiny"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's cache folder, with what was converted for other tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def user_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That cache folder as the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


@pytest.fixture(scope="session")
def made(checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelFiles]:
    """Returns the files of SmolLM2 for the given keys of a FileRequest; all processes that test share what is made."""
    stores = Stores(converted=ConvertedModels(common_folder(tmp_path_factory) / "made"))
    own = ConvertedModels(cache / "modelyard" / "converted")

    def make_once(**keys: Any) -> ModelFiles:
        files = resolve(FileRequest(str(checkpoint), **keys), stores)
        folder = files.paths[0].parent
        with own.locked(folder.name, lambda _: True) as place:
            if own.find(folder.name) is None:
                shutil.copytree(folder, place, copy_function=os.link, dirs_exist_ok=True)
        return files

    return make_once
