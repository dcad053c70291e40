"""Calls of functions that models make: checked, bounded in time, with a text as their result."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from modelyard.agent.tools import ReportProgress, ServerTool, ToolResult
from modelyard.inprocess.tools.callables import is_async
from modelyard.inprocess.tools.function_tool import FunctionTool
from modelyard.inprocess.tools.outcome import Raised, caught, caught_async
from modelyard.inprocess.tools.parameters import ArgumentsRefused
from modelyard.inprocess.tools.results import ResultRefused, bounded, exception_text, result_text
from modelyard.inprocess.tools.threads import FunctionThreads

PROGRAM: Final = "program"
"""``ServerTool.server`` of the functions of a program."""

DEFAULT_RESULT_BYTES: Final = 64 * 1024
"""Bound of a result where the configuration says none."""

logger = logging.getLogger(__name__)


class FunctionCalls:
    """Runs the functions of a program that models call.

    Args:
        threads: for functions that block.
        max_result_bytes: of the text that a model reads of one result.
    """

    def __init__(self, threads: FunctionThreads, max_result_bytes: int = DEFAULT_RESULT_BYTES) -> None:
        self._threads, self._max_result_bytes = threads, max_result_bytes
        # An event loop keeps weak references only to its tasks.
        self._running: set[asyncio.Task[Any]] = set()

    def server_tool(self, tool: FunctionTool) -> ServerTool:
        """Return a function as a tool that an agent runs."""

        async def run(arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
            return await self._result(tool, arguments)

        return ServerTool(
            name=tool.name,
            server=PROGRAM,
            own_name=tool.name,
            description=tool.description,
            parameters=tool.parameters,
            run=run,
            needs_approval=tool.needs_approval,
        )

    async def _result(self, tool: FunctionTool, arguments: Mapping[str, Any]) -> ToolResult:
        try:
            async with asyncio.timeout(tool.timeout_s):
                outcome = await self._outcome(tool, arguments)
        except TimeoutError:
            logger.warning("Tool %s did not return within %g s", tool.name, tool.timeout_s)
            return ToolResult(f"The tool did not return within {tool.timeout_s:g} seconds.", is_error=True)
        if not isinstance(outcome, Raised):
            text, is_cut = bounded(outcome, self._max_result_bytes)
            return ToolResult(text, is_cut=is_cut)
        raised = outcome.exception
        if isinstance(raised, ArgumentsRefused | ResultRefused):
            return ToolResult(bounded(str(raised), self._max_result_bytes)[0], is_error=True)
        logger.warning("Tool %s raised %s", tool.name, type(raised).__name__, exc_info=raised)
        return ToolResult(bounded(exception_text(raised), self._max_result_bytes)[0], is_error=True)

    async def _outcome(self, tool: FunctionTool, arguments: Mapping[str, Any]) -> str | Raised:
        """Return the text of a result, or what was raised on the way to it."""
        if is_async(tool.function):
            returned = await self._awaited(lambda: _called(tool, arguments))
        else:
            returned = await self._threads.run(lambda: _text_or_awaitable(_called(tool, arguments)), tool.name)
            if inspect.isawaitable(returned):
                # A function without ``async def`` may still return what has to be awaited.
                awaitable = returned
                returned = await self._awaited(lambda: awaitable)
        return returned if isinstance(returned, Raised) else caught(lambda: result_text(returned))

    async def _awaited(self, begin: Callable[[], Awaitable[Any]]) -> Any:
        """Return what a coroutine of the program returns, or ``Raised``.

        It is a task of its own: one that catches its cancellation keeps neither the answer nor the time limit waiting.
        """
        task = asyncio.create_task(caught_async(begin))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.wait((task,))
        finally:
            task.cancel()
        return task.result()


def _called(tool: FunctionTool, arguments: Mapping[str, Any]) -> Any:
    """Call a function, or raise ArgumentsRefused."""
    positional, by_name = tool.checked_parameters.checked(arguments)
    return tool.function(*positional, **by_name)


def _text_or_awaitable(returned: Any) -> Any:
    return returned if inspect.isawaitable(returned) else result_text(returned)
