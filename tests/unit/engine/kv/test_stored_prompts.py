"""Prompts that are left on disk at a load are found by later ones that begin as they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from modelyard.engine.kv import offload
from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.disk import KvDiskCache, Unsaved
from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Context
from modelyard.protocol.kv_snapshot import KvState
from modelyard.protocol.values import SequenceId

TOKEN_BYTES = 8
LONG = tuple(range(300))


class Cells:
    """llama.cpp's side: numbers of tokens by slot."""

    def __init__(self) -> None:
        self.restored: list[int] = []

    def trim(self, slot: int, length: int) -> None: ...

    def merge(self, source: int, target: int, length: int) -> None: ...

    def restore(self, slot: int, state: KvState) -> bool:
        self.restored.append(len(state) // TOKEN_BYTES)
        return True


class Engine:
    """The memory of an engine that looks for prompts in ``folder``, and parks none."""

    def __init__(self, folder: Path, window: int = 0) -> None:
        self.cells, self.cache = Cells(), KvCache(1000, 3)
        context = cast(Context, self.cells)
        self.moves = KvOffload("m", self.cache, context, window=window, parked_bytes=0, max_prefixes=2)
        self.moves.use_disk(disk(folder))
        self._number = 0

    def admits(self, tokens: Sequence[int], salt: str = "") -> list[int]:
        """Lengths of what is restored for a new sequence."""
        self._number += 1
        self.cells.restored.clear()
        sequence = TokenSequence(SequenceId(self._number), self._number, list(tokens), salt=salt)
        if self.moves.is_due([sequence]):
            self.moves.prepare_step([sequence])
        return list(self.cells.restored)


def disk(folder: Path) -> KvDiskCache:
    return KvDiskCache(folder, "identity", 2**30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    def state(tokens: Sequence[int]) -> KvState:
        return np.zeros(TOKEN_BYTES * len(tokens), np.uint8)

    other = LONG[:200]
    disk(tmp_path).save([Unsaved(LONG, lambda: state(LONG)), Unsaved(other, lambda: state(other), "a")])
    return tmp_path


def test_a_prompt_that_begins_as_one_on_disk_gets_it_once(folder: Path) -> None:
    engine = Engine(folder)
    assert engine.admits((*LONG[:250], 7, 7)) == [300]
    assert engine.admits((*LONG[:250], 8, 8)) == []


def test_what_saves_few_tokens_is_left_on_disk(folder: Path) -> None:
    assert Engine(folder).admits((*LONG[:120], 7, 7)) == []
    engine = Engine(folder)
    engine.cache.hold(LONG[:200], 0)
    assert engine.admits((*LONG, 7)) == []


def test_the_prompts_of_others_are_not_looked_at(folder: Path) -> None:
    engine = Engine(folder)
    assert engine.admits((*LONG, 7), salt="b") == []
    assert engine.admits((*LONG, 7), salt="a") == [200]


def test_behind_a_window_a_prompt_is_only_of_use_to_its_end(folder: Path) -> None:
    engine = Engine(folder, window=100)
    assert engine.admits((*LONG[:250], 7, 7)) == []
    assert engine.admits((*LONG, 7)) == [300]


def test_while_others_compute_no_large_state_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "MAX_PARKED_AT_ONCE", TOKEN_BYTES * 300 - 1)
    engine = Engine(folder)
    engine.cache.assign(engine.cache.slots[0], SequenceId(99))
    assert engine.admits((*LONG, 7)) == []
    engine.cache.make_idle(engine.cache.slots[0])
    assert engine.admits((*LONG, 7)) == [300]


def test_a_file_that_is_gone_is_no_longer_looked_for(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(folder)
    for file in folder.iterdir():
        file.unlink()
    assert engine.admits((*LONG, 7)) == []
    assert caplog.records == []
