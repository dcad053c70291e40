"""Calls wait for their approvals within bounds, and are decided by those whom they belong to."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from modelyard.agent import approvals
from modelyard.agent.approvals import ApprovalDesk, Decision
from modelyard.agent.events import RunningCall
from modelyard.errors import ApprovalNotFound, TooManyConnections
from modelyard.protocol.deltas import ToolCall
from modelyard.yard.stats import broadcast
from support.scripted_tools import add, server_tool

RUNNING = RunningCall(ToolCall("c1", "calc_add", "{}"), server_tool("add", add), 0)
YES = Decision(is_approved=True)


async def test_an_owner_sees_and_decides_its_own_calls() -> None:
    desk = ApprovalDesk()
    with desk.waiting(RUNNING, "m", b"alice", 60) as pending:
        assert pending is not None
        assert desk.pending(b"alice", sees_all=False) == [pending]
        assert desk.pending(b"bob", sees_all=False) == []
        assert desk.pending(b"bob", sees_all=True) == [pending]
        with pytest.raises(ApprovalNotFound):
            desk.decide(pending.id, YES, b"bob", sees_all=False)
        desk.decide(pending.id, YES, b"alice", sees_all=False)
        # The first decision counts, and who comes second learns that theirs does not.
        with pytest.raises(ApprovalNotFound):
            desk.decide(pending.id, Decision(is_approved=False), b"alice", sees_all=False)
        assert desk.pending(b"alice", sees_all=False) == []
        assert await pending.decision() == YES
    with pytest.raises(ApprovalNotFound):
        desk.decide(pending.id, YES, b"alice", sees_all=False)


async def test_a_decision_at_the_end_of_the_time_counts_where_it_was_taken() -> None:
    desk = ApprovalDesk()
    with desk.waiting(RUNNING, "m", None, 0) as pending:
        assert pending is not None
        decision = asyncio.create_task(pending.decision())
        # The time ends, and the call has not heard of it yet.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        desk.decide(pending.id, YES, None, sees_all=True)
        assert await decision == YES


async def test_who_waits_for_calls_learns_of_the_first() -> None:
    desk = ApprovalDesk()
    waiting = asyncio.create_task(desk.wait_for_some(None, 20, sees_all=True))
    await asyncio.sleep(0)
    with desk.waiting(RUNNING, "m", None, 60) as pending:
        assert await waiting == [pending]
    assert await desk.wait_for_some(None, 0, sees_all=True) == []


async def test_observers_learn_what_becomes_of_each_call() -> None:
    desk = ApprovalDesk()
    with desk.observer() as observer:
        with desk.waiting(RUNNING, "m", None, 60) as first:
            assert first is not None
            desk.decide(first.id, YES, None, sees_all=True)
        with desk.waiting(RUNNING, "m", None, 60):
            pass
        changes = aiter(observer)
        states = [(await anext(changes)).state for _ in range(4)]
    assert states == ["waiting", "approved", "waiting", "over"]


async def test_an_observer_that_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MAX_UNREAD", 3)
    desk = ApprovalDesk()
    with desk.observer() as observer:
        for _ in range(3):
            with desk.waiting(RUNNING, "m", None, 60):
                pass
        assert len([change async for change in observer]) == 3


async def test_observers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MAX_OBSERVERS", 1)
    desk = ApprovalDesk()
    with desk.observer(), pytest.raises(TooManyConnections), desk.observer():
        pass


async def test_waiting_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "MAX_WAITING", 4)
    monkeypatch.setattr(approvals, "MAX_WAITING_OF_OWNER", 2)
    desk = ApprovalDesk()
    with ExitStack() as stack:
        made = [stack.enter_context(desk.waiting(RUNNING, "m", b"alice", 60)) for _ in range(3)]
        assert [each is not None for each in made] == [True, True, False]
        more = [stack.enter_context(desk.waiting(RUNNING, "m", None, 60)) for _ in range(3)]
        assert [each is not None for each in more] == [True, True, False]
    assert desk.pending(None, sees_all=True) == []
