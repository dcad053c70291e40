"""What a server keeps of an engine in another process: when it hangs, and how it dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from modelyard.engine.hosts.remote_engine_state import MAX_SILENT_S, RemoteEngineState
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Accepted, Died, Dying, Event, Returned, Started, Suspended, Token
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Cancel, Submit
from modelyard.protocol.values import SequenceId

ONE, TWO = SequenceId(1), SequenceId(2)


@pytest.fixture
def published() -> list[Event]:
    return []


@pytest.fixture
def engine(published: list[Event]) -> RemoteEngineState:
    return RemoteEngineState(1, EngineSettings("smol", (Path("smol.gguf"),), "Q4_1"), published.extend)


def test_an_engine_hangs_when_it_does_not_answer_a_cancel(
    engine: RemoteEngineState, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    engine.on_send(Submit(ONE, Text("a")))
    now += 2 * MAX_SILENT_S
    assert engine.hang_reason() is None
    engine.on_send(Cancel(ONE))
    now += MAX_SILENT_S
    engine.on_send(Cancel(TWO))
    assert engine.hang_reason() is None
    now += 1.0
    assert "has not answered" in (engine.hang_reason() or "")


def test_an_engine_that_dies_gives_its_requests_back(engine: RemoteEngineState, published: list[Event]) -> None:
    engine.identity = "i"
    for number in (ONE, TWO):
        engine.on_send(Submit(number, Text("a")))
    engine.records.update([Accepted(ONE, 1, None, (5,)), Started(ONE), Token(ONE, "b", ids=(6,))])
    engine.die("a signal", {ONE, 3})
    dying, suspended, returned, died = published
    assert dying == Dying("a signal", (ONE,))
    assert isinstance(suspended, Suspended)
    assert suspended.state.answer == (6,)
    assert returned == Returned(TWO)
    assert died == Died("a signal")
    assert engine.is_over.is_set()


def test_an_engine_that_dies_while_it_loads_was_never_dying(engine: RemoteEngineState, published: list[Event]) -> None:
    engine.on_send(Submit(ONE, Text("a")))
    engine.die("a signal", {ONE})
    assert published == [Returned(ONE), Died("a signal")]
