"""Calls that run when their model or their stream is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard import AsyncModel, FunctionTool, ModelBuilder
from modelyard.errors import Closed, ShuttingDown
from modelyard.inprocess.buildable import Buildable
from support.program_tools import Build
from support.scripted_engines import ScriptedEngines
from support.tool_turns import call, turns

WAIT_S = 20.0


@pytest.fixture
def hangs() -> Iterator[FunctionTool]:
    """A function that returns when the test has ended."""
    released = threading.Event()
    yield FunctionTool(lambda: str(released.wait(WAIT_S)), name="hangs")
    released.set()


def test_closing_the_model_does_not_wait_for_a_function_that_hangs(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines, hangs: FunctionTool
) -> None:
    begun = threading.Event()

    def hangs_visibly() -> str:
        begun.set()
        return str(hangs.function())

    engines.answer = turns(call("hangs_visibly"), "Done")
    model = build(tiny().with_tools([hangs_visibly]))
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(model.send_chat_request, "Hang.")
        assert begun.wait(WAIT_S)
        model.close()
        with pytest.raises(Closed):
            answer.result(WAIT_S)


async def test_closing_an_asynchronous_model_ends_the_calls_of_its_answers(
    tiny: Callable[[], ModelBuilder],
    built_async: Callable[[Buildable], Awaitable[AsyncModel]],
    engines: ScriptedEngines,
    hangs: FunctionTool,
) -> None:
    engines.answer = turns(call("hangs"), "Done")
    model = await built_async(tiny().with_tools([hangs]))
    stream = model.stream_chat_request("Hang.")
    async for chunk in stream:
        if chunk.agentic_tool_call_progress:
            break
    await model.aclose()
    with pytest.raises(ShuttingDown):
        async for _ in stream:
            pass


def test_closing_a_stream_cancels_its_calls(
    tiny: Callable[[], ModelBuilder], build: Build, engines: ScriptedEngines
) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    engines.answer = turns(call("forever"), "Done")
    model = build(tiny().with_tools([forever]))
    with model.stream_chat_request("Hang.") as stream, ThreadPoolExecutor(1) as reading:
        chunks = reading.submit(list, stream)
        assert begun.wait(WAIT_S)
        stream.close()
        assert not any(chunk.usage for chunk in chunks.result(WAIT_S))
    assert cancelled.wait(WAIT_S)
