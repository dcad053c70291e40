"""Suspects come to an engine one at a time; all other messages pass them."""

from __future__ import annotations

import pytest

from modelyard.engine.suspects import SuspectQueue
from modelyard.errors import EngineError
from modelyard.protocol.events import Cancelled, Event, Failed, Finished, Token
from modelyard.protocol.messages import Message, Resume
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Cancel, Embed, Rank, Stop, Submit, Tokenize
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId, Usage

ONE, TWO, THREE = map(SequenceId, (1, 2, 3))


def suspect(sequence: SequenceId) -> Submit:
    return Submit(sequence, Text("a"), alone=True)


@pytest.fixture
def sent() -> list[Message]:
    return []


@pytest.fixture
def line(sent: list[Message]) -> SuspectQueue:
    line = SuspectQueue(sent.append)
    line.submit(suspect(ONE))
    line.submit(suspect(TWO))
    return line


@pytest.mark.parametrize(
    "event",
    [
        Token(ONE, "a", (), (7,)),
        Token(ONE, "", (), (7,)),
        Finished(ONE, "stop", Usage(1, 1, 0)),
        Failed(ONE, EngineError("m", "x")),
        Cancelled(ONE),
    ],
    ids=lambda event: f"{type(event).__name__} {getattr(event, 'text', '')}",
)
def test_one_comes_when_the_one_before_has_a_token_or_has_ended(
    line: SuspectQueue, sent: list[Message], event: Event
) -> None:
    assert sent == [suspect(ONE)]
    line.observe([Token(THREE, "x", (), (1,)), event])
    assert sent == [suspect(ONE), suspect(TWO)]


@pytest.mark.parametrize("event", [Token(TWO, "a", (), (7,)), Token(ONE, "the prompt"), Finished(THREE, "stop", None)])  # type: ignore[arg-type]
def test_nothing_else_lets_one_in(line: SuspectQueue, sent: list[Message], event: Event) -> None:
    line.observe([event])
    assert sent == [suspect(ONE)]


def test_every_kind_of_request_waits(line: SuspectQueue, sent: list[Message]) -> None:
    state = SuspendedSequence("i", Submit(THREE, Text("a")), (1,), (), None, None)
    requests = [
        Resume(state, alone=True),
        Embed(SequenceId(4), (Text("a"),), alone=True),
        Rank(SequenceId(5), "a", ("b",), alone=True),
        Tokenize(SequenceId(6), Text("a"), alone=True),
    ]
    for request in requests:
        line.submit(request)
    assert sent == [suspect(ONE)]
    for sequence in range(1, 6):
        line.observe([Cancelled(SequenceId(sequence))])
    assert sent == [suspect(ONE), suspect(TWO), *requests]


def test_others_do_not_wait(line: SuspectQueue, sent: list[Message]) -> None:
    other = Submit(THREE, Text("b"))
    line.submit(other)
    assert sent == [suspect(ONE), other]


def test_one_that_is_cancelled_while_it_waits_is_ended_by_the_engine(line: SuspectQueue, sent: list[Message]) -> None:
    line.submit(Cancel(TWO))
    assert sent == [suspect(ONE), suspect(TWO), Cancel(TWO)]
    line.observe([Cancelled(TWO)])
    line.observe([Cancelled(ONE)])
    assert len(sent) == 3


def test_a_stop_finds_those_that_wait_in_the_engine(line: SuspectQueue, sent: list[Message]) -> None:
    line.submit(Stop(suspend=True))
    assert sent == [suspect(ONE), suspect(TWO), Stop(suspend=True)]
