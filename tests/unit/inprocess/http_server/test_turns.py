"""What comes for many connections at once leaves turns of the event loop to others."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise

import pytest

from modelyard.inprocess.http_server.read_turns import ReadInTurns
from modelyard.inprocess.http_server.turns import MAX_AT_ONCE, Turns


async def test_a_few_calls_are_made_at_once() -> None:
    turns, called = Turns(), list[int]()
    for number in range(MAX_AT_ONCE):
        turns.call(partial(called.append, number))
    assert called == list(range(MAX_AT_ONCE))


async def test_many_calls_are_made_in_order_a_share_in_each_turn() -> None:
    turns, called = Turns(), list[int]()
    for number in range(3 * MAX_AT_ONCE + 1):
        turns.call(partial(called.append, number))
    made = [len(called)]
    while len(called) < 3 * MAX_AT_ONCE + 1:
        await asyncio.sleep(0)
        made.append(len(called))
    assert called == list(range(3 * MAX_AT_ONCE + 1))
    assert max(after - before for before, after in pairwise(made)) <= MAX_AT_ONCE
    assert len(made) >= 4


async def test_a_call_in_a_later_turn_is_made_at_once_again() -> None:
    turns, called = Turns(), list[int]()
    for number in range(MAX_AT_ONCE):
        turns.call(partial(called.append, number))
    await asyncio.sleep(0)
    turns.call(partial(called.append, -1))
    assert called[-1] == -1


async def test_a_call_that_fails_keeps_no_other_from_being_made(caplog: pytest.LogCaptureFixture) -> None:
    turns, called = Turns(), list[int]()
    for number in range(MAX_AT_ONCE):
        turns.call(partial(called.append, number))
    turns.call(partial(called.remove, -7))
    turns.call(partial(called.append, -1))
    await asyncio.sleep(0)
    assert called[-1] == -1
    assert "A connection was not let go" in caplog.text


class Transport(asyncio.Transport):
    """Counts how often it was told to read on."""

    def __init__(self) -> None:
        super().__init__()
        self.resumed, self.closing = 0, False

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        self.resumed += 1


async def test_a_few_bodies_are_read_on_in_each_turn() -> None:
    turns, transports = Turns(2), [Transport() for _ in range(6)]
    flows = [ReadInTurns(transport, turns) for transport in transports]
    for flow in flows:
        flow.pause_reading()
        flow.resume_reading()
    resumed = [sum(transport.resumed for transport in transports)]
    for _ in range(2):
        await asyncio.sleep(0)
        resumed.append(sum(transport.resumed for transport in transports))
    assert resumed == [2, 4, 6]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_body_that_was_paused_or_closed_before_its_turn_is_not_read_on(is_closed: bool) -> None:
    turns, first, second = Turns(1), Transport(), Transport()
    for flow in (ReadInTurns(first, turns), waiting := ReadInTurns(second, turns)):
        flow.pause_reading()
        flow.resume_reading()
    if is_closed:
        second.closing = True
    else:
        waiting.pause_reading()
    for _ in range(3):
        await asyncio.sleep(0)
    assert (first.resumed, second.resumed) == (1, 0)
