"""Calls of functions that models make: checked, bounded in time, with a text as their result."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from typing import Any, Final

from modelyard.agent.result_text import bounded_result, joined
from modelyard.agent.tools import ReportProgress, ServerTool, ToolResult
from modelyard.inprocess.tools.callables import is_async
from modelyard.inprocess.tools.function_tool import FunctionTool
from modelyard.inprocess.tools.outcome import Raised, caught
from modelyard.inprocess.tools.parameters import ArgumentsRefused
from modelyard.inprocess.tools.results import ResultRefused, exception_text, result_text
from modelyard.inprocess.tools.runner import FunctionRunner

PROGRAM: Final = "program"
"""``ServerTool.server`` of the functions of a program."""

logger = logging.getLogger(__name__)


class FunctionCalls:
    """Runs the functions of a program that models call.

    Args:
        runner: runs the functions.
        max_result_bytes: of the text that a model reads of one result.
    """

    def __init__(self, runner: FunctionRunner, max_result_bytes: int) -> None:
        self._runner, self._max_result_bytes = runner, max_result_bytes

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
            return self._bounded(outcome)
        raised = outcome.exception
        if isinstance(raised, ArgumentsRefused | ResultRefused):
            return self._bounded(str(raised), is_error=True)
        logger.warning("Tool %s raised %s", tool.name, type(raised).__name__, exc_info=raised)
        return self._bounded(exception_text(raised), is_error=True)

    def _bounded(self, text: str, *, is_error: bool = False) -> ToolResult:
        kept, size = joined((text,), self._max_result_bytes)
        return bounded_result(kept, size, self._max_result_bytes, is_error=is_error)

    async def _outcome(self, tool: FunctionTool, arguments: Mapping[str, Any]) -> str | Raised:
        """Return the text of a result, or what was raised on the way to it."""

        def call() -> Any:
            positional, by_name = tool.checked_parameters.checked(arguments)
            returned = tool.function(*positional, **by_name)
            # On the thread of the function: a long text takes its time.
            return returned if inspect.isawaitable(returned) else result_text(returned)

        returned = await self._runner.run(call, tool.name, is_async=is_async(tool.function))
        return returned if isinstance(returned, Raised) else caught(lambda: result_text(returned))
