"""What real engines are at is in the table of engines, while they are at it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.engine.engine import Engine
from modelyard.engine.llama import Batch, Context, Model, PooledContext
from modelyard.engine.scheduling.engine_table import EngineActivity, EngineTable
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Event, Loaded, LoadProgress, Stopped
from modelyard.protocol.messages import Restore
from modelyard.protocol.prompts import Chat, Text
from modelyard.protocol.requests import Embed, Stop
from modelyard.protocol.values import SequenceId
from modelyard.system.file_digest import contents_digest
from support.engine_driver import WAIT_S, Driven

Seen = list[EngineActivity]


@pytest.fixture
def table() -> EngineTable:
    return EngineTable()


def watching(monkeypatch: pytest.MonkeyPatch, table: EngineTable, owner: type, method: str) -> Seen:
    """What the table says of the one engine whenever ``method`` is called."""
    seen: Seen = []
    real = getattr(owner, method)

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.extend(table.records())
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, method, watched)
    return seen


def test_a_sequence_is_noted_while_it_is_read_and_computed(
    drawn_weights: dict[str, Path], table: EngineTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenised = watching(monkeypatch, table, Model, "tokenize")
    decoded = watching(monkeypatch, table, Context, "decode")
    driven = Driven(drawn_weights["smollm2"], device=Device(table))
    driven.answer("The sea", number=7, max_tokens=3)
    driven.answer(Text("The sea is wide. " * 100), number=8, max_tokens=3)
    driven.submit(9, Chat(({"role": "user", "content": "The sea?"},)), max_tokens=3)
    driven.finished(9)
    assert {(activity.doing, activity.computing) for activity in decoded} == {
        ("computing", (7,)),
        ("computing", (8,)),
        ("computing", (9,)),
    }
    read = {(activity.doing, activity.reading) for activity in tokenised}
    assert {("reading", (7,)), ("reading", (8,)), ("reading", (9,))} <= read
    assert {activity.model_digest for activity in decoded} == {contents_digest([drawn_weights["smollm2"]])}
    driven.stopped(Stop())
    assert table.records() == ()


def test_a_load_and_its_end_are_noted(drawn_weights: dict[str, Path], table: EngineTable) -> None:
    seen: dict[type[Event], list[tuple[str, str]]] = {}
    is_loaded = threading.Event()

    def publish(events: Sequence[Event]) -> None:
        for event in events:
            seen[type(event)] = [(activity.name, activity.doing) for activity in table.records()]
            if isinstance(event, Loaded):
                is_loaded.set()

    settings = EngineSettings("smol", (drawn_weights["smollm2"],), "", context_length=256)
    engine = Engine(settings, publish, device=Device(table))
    engine.start()
    assert is_loaded.wait(WAIT_S)
    engine.send(Stop())
    assert engine.join(WAIT_S)
    assert seen == {LoadProgress: [("smol", "loading")], Loaded: [("smol", "idle")], Stopped: []}


def test_a_sequence_that_leaves_is_saved_and_one_that_comes_back_restored(
    drawn_weights: dict[str, Path], table: EngineTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = watching(monkeypatch, table, Context, "save")
    driven = Driven(drawn_weights["smollm2"], device=Device(table), kv_keep="memory", kv_keep_bytes=1 << 30)
    driven.answer("The sea is wide", max_tokens=8)
    kept = driven.stopped(Stop(keep_bytes=1 << 30)).kept
    assert {activity.doing for activity in saved} == {"saving"}
    assert kept is not None
    restored = watching(monkeypatch, table, Context, "restore")
    again = Driven(drawn_weights["smollm2"], device=Device(table))
    again.send(Restore(kept))
    again.answer("The sea is wide", max_tokens=1)
    again.stopped(Stop())
    assert {activity.doing for activity in restored} == {"restoring"}


def test_a_batch_of_inputs_is_noted_while_it_is_computed(
    minilm: Path, table: EngineTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = watching(monkeypatch, table, PooledContext, "embed")
    driven = Driven(minilm, device=Device(table), kind="embedding", context_length=None)
    driven.loaded()
    embedded.clear()
    driven.send(Embed(SequenceId(4), (Text("a"), Text("b"))))
    driven.until(lambda: bool(embedded))
    assert {(activity.doing, activity.computing) for activity in embedded} == {("computing", (4,))}
    driven.stopped(Stop())


def test_what_a_failed_engine_leaves_is_freed(
    drawn_weights: dict[str, Path], table: EngineTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(context: Context, batch: Batch, length: int) -> int:
        raise OSError("a fault in the test")

    driven = Driven(drawn_weights["smollm2"], device=Device(table))
    driven.loaded()
    monkeypatch.setattr(Context, "decode", fail)
    driven.submit(1, "The sea")
    driven.until(lambda: driven.over is not None)
    assert table.records() == ()
