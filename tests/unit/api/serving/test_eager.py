"""Work that is begun where it comes up, and needs a task only if it has to wait."""

from __future__ import annotations

import asyncio

import pytest

from modelyard.api.serving.eager import start_eagerly

WAIT_S = 20.0


class Work:
    """Waits for ``gate``, where there is one."""

    def __init__(self, gate: asyncio.Event | None = None, failure: Exception | None = None) -> None:
        self.gate, self.failure = gate, failure
        self.steps: list[str] = []

    async def do(self) -> None:
        try:
            self.steps.append("begun")
            if self.gate is not None:
                await self.gate.wait()
                await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
            self.steps.append("done")
        finally:
            self.steps.append("left")


def test_work_that_waits_for_nothing_is_done_at_once_without_an_event_loop() -> None:
    work = Work()
    assert start_eagerly(work.do()) is None
    assert work.steps == ["begun", "done", "left"]


async def test_work_that_waits_goes_on_when_it_is_awaited() -> None:
    work = Work(asyncio.Event())
    rest = start_eagerly(work.do())
    assert rest is not None
    assert work.steps == ["begun"]
    work.gate.set()
    async with asyncio.timeout(WAIT_S):
        await rest
    assert work.steps == ["begun", "done", "left"]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_failure_is_raised_where_the_rest_is_awaited(waits: bool) -> None:
    gate = asyncio.Event() if waits else None
    rest = start_eagerly(Work(gate, ValueError("a defect")).do())
    assert rest is not None
    if gate is not None:
        gate.set()
    with pytest.raises(ValueError, match="a defect"):
        async with asyncio.timeout(WAIT_S):
            await rest


async def test_work_whose_task_is_cancelled_is_left() -> None:
    work = Work(asyncio.Event())
    rest = start_eagerly(work.do())
    assert rest is not None

    async def go_on() -> None:
        await rest

    task = asyncio.create_task(go_on())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.steps == ["begun", "left"]
