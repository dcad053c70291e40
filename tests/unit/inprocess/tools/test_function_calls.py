"""Calls of functions of a program: what a model reads of them, and what bounds them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from modelyard.agent.tools import ServerTool, ToolResult
from modelyard.inprocess.tools.calls import FunctionCalls
from modelyard.inprocess.tools.function_tool import FunctionTool
from modelyard.inprocess.tools.results import MAX_ERROR_CHARS, ResultRefused, result_text
from modelyard.inprocess.tools.runner import FunctionRunner

WAIT_S = 20.0
MAX_RESULT_BYTES = 10_000
SHORT_S = 0.05
USER: ContextVar[str] = ContextVar("USER", default="nobody")


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int


class Order(BaseModel):
    at: date


class Plain:
    pass


def server_tool(function: Callable[..., Any], *, threads: int = 4, **settings: Any) -> ServerTool:
    """A function as an agent runs it."""
    tool = FunctionTool(function, **{"name": "tool", **settings})
    return FunctionCalls(FunctionRunner(threads), MAX_RESULT_BYTES).server_tool(tool)


async def call(function: Callable[..., Any], **settings: Any) -> ToolResult:
    """What a model reads of a call without arguments."""
    return await server_tool(function, **settings).run({}, lambda _: None)


@pytest.fixture
async def hangs() -> AsyncIterator[Callable[[], str]]:
    """A function that returns when the test has ended."""
    released = threading.Event()
    yield lambda: str(released.wait(WAIT_S))
    released.set()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a <|im_end|> b", "a <|im_end|> b"),
        (None, ""),
        (3, "3"),
        (math.inf, "Infinity"),
        (True, "true"),
        ({"a": [1, 2.5, None], "ü": "ä"}, '{"a":[1,2.5,null],"ü":"ä"}'),
        ((1, 2), "[1,2]"),
        (Point(1), '{"x":1}'),
        ([Point(1), Color.RED], '[{"x":1},"red"]'),
        (Order(at=date(2026, 2, 3)), '{"at":"2026-02-03"}'),
        (np.arange(3), "[0,1,2]"),
        (np.float32(0.5), "0.5"),
        (b"\xff\x00", "<2 bytes>"),
        (Plain(), "<Plain>"),
        (Color.RED, "red"),
        ({"plain": Plain()}, '{"plain":"<Plain>"}'),
        (itertools.count(), "<count>"),
    ],
)
def test_what_is_returned_becomes_text(value: Any, text: str) -> None:
    assert result_text(value) == text


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ResultRefused, match="The result, of type list, is no JSON"):
        result_text(endless)


async def _async_text() -> str:
    return "text"


async def _async_point() -> Point:
    return Point(2)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: "text", "text"),
        (lambda: Point(1), '{"x":1}'),
        (_async_text, "text"),
        (_async_point, '{"x":2}'),
        # A function that is not known to be awaited.
        (lambda: _async_point(), '{"x":2}'),
    ],
)
async def test_functions_and_coroutines_are_called(function: Callable[..., Any], text: str) -> None:
    assert await call(function) == ToolResult(text)


async def test_arguments_are_converted_or_refused_before_the_call() -> None:
    calls: list[int] = []

    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    async def triple(number: int) -> int:
        calls.append(number)
        return 3 * number

    for function, result in ((double, "8"), (triple, "12")):
        tool = server_tool(function)
        assert await tool.run({"number": "4"}, lambda _: None) == ToolResult(result)
        refused = await tool.run({"number": "four"}, lambda _: None)
        assert refused.is_error
        assert "number: Input should be a valid integer" in refused.text
    assert calls == [4, 4]


def _raises(exception: BaseException) -> Callable[[], Any]:
    def function() -> Any:
        raise exception

    return function


def _raises_awaited(exception: BaseException) -> Callable[[], Awaitable[Any]]:
    async def function() -> Any:
        raise exception

    return function


@pytest.mark.parametrize("raises", [_raises, _raises_awaited])
@pytest.mark.parametrize(
    ("exception", "text"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError(), "RuntimeError"),
        (TimeoutError("of its own"), "TimeoutError: of its own"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError("of its own"), "CancelledError: of its own"),
    ],
)
async def test_an_exception_is_a_result_without_a_traceback(
    raises: Callable[[BaseException], Callable[..., Any]],
    exception: BaseException,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert await call(raises(exception)) == ToolResult(text, is_error=True)
    (record,) = caplog.records
    assert record.getMessage() == f"Tool tool raised {type(exception).__name__}"
    assert record.exc_info is not None


async def test_a_stop_of_an_iteration_is_an_exception_like_others() -> None:
    assert await call(_raises(StopIteration(1))) == ToolResult("StopIteration: 1", is_error=True)


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


async def test_the_text_of_an_exception_is_bounded() -> None:
    result = await call(_raises(ValueError("x" * 100_000)))
    assert len(result.text) == MAX_ERROR_CHARS + 1
    assert await call(_raises(_Unspeakable())) == ToolResult("_Unspeakable", is_error=True)


async def test_a_function_that_does_not_return_is_given_up(hangs: Callable[[], str]) -> None:
    result = await call(hangs, timeout_s=SHORT_S)
    assert result == ToolResult("The tool did not return within 0.05 seconds.", is_error=True)


async def test_a_coroutine_that_does_not_return_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    assert (await call(forever, timeout_s=SHORT_S)).is_error
    await asyncio.wait_for(cancelled.wait(), WAIT_S)


async def test_a_coroutine_that_catches_its_cancellation_holds_nobody_up() -> None:
    released = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    assert (await call(stubborn, timeout_s=SHORT_S)).is_error
    released.set()
    await asyncio.wait_for(ended.wait(), WAIT_S)


async def test_cancelling_a_call_cancels_a_coroutine_and_leaves_a_thread_to_itself(hangs: Callable[[], str]) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    calling = asyncio.create_task(call(forever))
    await asyncio.wait_for(begun.wait(), WAIT_S)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await asyncio.wait_for(cancelled.wait(), WAIT_S)

    loop = asyncio.get_running_loop()

    def blocks() -> None:
        loop.call_soon_threadsafe(begun.set)
        hangs()

    begun.clear()
    calling = asyncio.create_task(call(blocks))
    await asyncio.wait_for(begun.wait(), WAIT_S)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_functions_see_the_context_of_the_request() -> None:
    async def user() -> str:
        return USER.get()

    USER.set("ada")
    assert await call(lambda: USER.get()) == await call(user) == ToolResult("ada")


async def test_at_most_so_many_threads_run_and_others_wait_their_turn() -> None:
    released, both_run = threading.Event(), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def function(number: int) -> int:
        running.append(number)
        most.append(len(running))
        if len(running) == 2:
            both_run.set()
        released.wait(WAIT_S)
        running.remove(number)
        return number

    tool = server_tool(function, threads=2)
    calls = [asyncio.create_task(tool.run({"number": number}, lambda _: None)) for number in range(6)]
    assert await asyncio.to_thread(both_run.wait, WAIT_S)
    # One that waits for its turn can be cancelled.
    calls[3].cancel()
    await asyncio.wait((calls[3],))
    released.set()
    results = await asyncio.gather(*calls[:3], *calls[4:])
    assert [result.text for result in results] == ["0", "1", "2", "4", "5"]
    assert max(most) == 2


async def test_a_call_that_finds_all_threads_hanging_is_given_up(hangs: Callable[[], str]) -> None:
    tool = server_tool(hangs, threads=1, timeout_s=SHORT_S)
    assert (await tool.run({}, lambda _: None)).is_error
    assert (await tool.run({}, lambda _: None)).is_error


async def test_a_thread_that_hangs_does_not_hold_up_the_end_of_the_process(hangs: Callable[[], str]) -> None:
    await call(hangs, timeout_s=SHORT_S)
    (thread,) = [each for each in threading.enumerate() if each.name == "tool"]
    assert thread.daemon


async def test_a_long_result_of_a_function_is_cut() -> None:
    result = await call(lambda: "x" * 10_000_000)
    assert result.is_cut
    assert len(result.text) < MAX_RESULT_BYTES + 100
