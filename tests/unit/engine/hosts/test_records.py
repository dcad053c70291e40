"""A server knows of the requests in an engine's process what it needs to have them go on elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard.engine.hosts.records import RequestRecords
from modelyard.errors import EngineError
from modelyard.protocol.events import Accepted, Cancelled, Event, Failed, Finished, Returned, Started, Suspended, Token
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Cancel, Embed, Submit, Tokenize
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import OutputFormat, SequenceId, TokenLogprob, Usage

ONE, TWO = SequenceId(1), SequenceId(2)
REQUEST = Submit(ONE, Text("a"), alone=True)
READING = OutputFormat("hermes", "", False)
PENDING = (TokenLogprob(b"a", -1.0, ()),)


@pytest.fixture
def records() -> RequestRecords:
    records = RequestRecords()
    records.add(REQUEST)
    return records


def accept(records: RequestRecords) -> None:
    records.update([Accepted(ONE, 2, READING, (5, 6))])


def test_what_was_not_accepted_is_sent_again(records: RequestRecords) -> None:
    assert records.drain("i") == [Returned(ONE)]


def test_what_was_accepted_goes_on_with_the_tokens_that_it_has(records: RequestRecords) -> None:
    accept(records)
    records.update([Started(ONE, 1), Token(ONE, "", (), (7,)), Token(TWO, "x", (), (1,))])
    records.update([Token(ONE, "a", (), (8, 9), PENDING)])
    expected = SuspendedSequence("i", replace(REQUEST, alone=False), (5, 6), (7, 8, 9), READING, 1, PENDING)
    assert records.drain("i") == [Suspended(ONE, expected)]


def test_what_went_on_from_a_state_goes_on_from_there(records: RequestRecords) -> None:
    accept(records)
    records.update([Started(ONE, 0), Token(ONE, "a", (), (7,))])
    (left,) = records.drain("i")
    assert isinstance(left, Suspended)
    records.add(Resume(left.state))
    records.update([Token(ONE, "b", (), (8,))])
    assert records.drain("i") == [Suspended(ONE, replace(left.state, answer=(7, 8)))]


@pytest.mark.parametrize(
    "end",
    [
        Finished(ONE, "stop", Usage(1, 1, 0)),
        Failed(ONE, EngineError("m", "x")),
        Cancelled(ONE),
        Returned(ONE),
    ],
    ids=lambda end: type(end).__name__,
)
def test_what_has_ended_does_not_go_on(records: RequestRecords, end: Event) -> None:
    accept(records)
    records.update([end])
    assert records.drain("i") == []


def test_what_is_answered_at_once_is_sent_again(records: RequestRecords) -> None:
    records.update([Cancelled(ONE)])
    records.add(Embed(ONE, (Text("a"),)))
    records.add(Tokenize(TWO, Text("b")))
    records.add(Cancel(TWO))
    assert records.drain("i") == [Returned(ONE), Returned(TWO)]


def test_they_leave_once(records: RequestRecords) -> None:
    assert records.drain("i")
    assert records.drain("i") == []
