"""The tools that models of a program may call, and the approvals that the program asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from modelyard.agent.agent import Agent
from modelyard.agent.approvals import ApprovalDesk, Decision, PendingApproval
from modelyard.agent.calls import arguments_of
from modelyard.agent.tools import ServerTool, ToolSource
from modelyard.inprocess.tools.approval import ToolApproval
from modelyard.inprocess.tools.callables import is_async
from modelyard.inprocess.tools.calls import FunctionCalls
from modelyard.inprocess.tools.function_tool import FunctionTool
from modelyard.inprocess.tools.outcome import Raised
from modelyard.inprocess.tools.runner import FunctionRunner

if TYPE_CHECKING:
    from modelyard.inprocess.tools.program_tools import ProgramTools
    from modelyard.yard.requests.context import Caller

MAX_APPROVAL_THREADS: Final = 16
"""Approvals that functions decide on threads at the same time. Functions of tools that hang take none of these."""


class ModelToolbox:
    """The tools of all models of a program: its functions, and what other sources have.

    Args:
        program: the functions, and who approves calls.
        others: further sources, such as MCP servers.
        max_result_bytes: of the text that a model reads of the result of a function.

    Attributes:
        program: as above; another value replaces it, for the requests that begin later.
        agent: runs the tools for the answers.
    """

    def __init__(self, program: ProgramTools, others: Sequence[ToolSource], max_result_bytes: int) -> None:
        self.program = program
        self._calls = FunctionCalls(FunctionRunner(), max_result_bytes)
        self._approvals = FunctionRunner(MAX_APPROVAL_THREADS)
        approvals = ApprovalDesk(self._decide, lambda model: self.program.approve(model) is not None)
        self.agent = Agent((_Functions(self), *others), approvals)

    def server_tools(self, functions: Iterable[FunctionTool]) -> tuple[ServerTool, ...]:
        """Return functions as tools, which an agent runs."""
        return tuple(map(self._calls.server_tool, functions))

    async def _decide(self, pending: PendingApproval) -> Decision | None:
        """Decide about a call as the program does; None: it leaves the decision to others."""
        approve = self.program.approve(pending.model)
        if approve is None:
            return None
        call, tool = pending.running.call, pending.running.tool
        asked = ToolApproval(tool.name, tool.server, arguments_of(call.arguments), pending.model)
        decided = await self._approvals.run(lambda: approve(asked), "approval", is_async=is_async(approve))
        if isinstance(decided, Raised):
            raise RuntimeError("the function that approves calls has failed") from decided.exception  # noqa: TRY004
        return _decision(decided)


class _Functions:
    """The functions of a program as a source of tools."""

    def __init__(self, toolbox: ModelToolbox) -> None:
        self._toolbox = toolbox

    def tools(self, model: str, caller: Caller) -> Sequence[ServerTool]:
        """Return the functions that ``model`` may call. A key with a list of MCP servers has those alone."""
        if caller.mcp_servers is not None:
            return ()
        return self._toolbox.server_tools(self._toolbox.program.functions(model))

    def connected_servers(self, model: str, caller: Caller) -> int | None:  # noqa: ARG002 (of the protocol)
        """Return None: functions are no MCP server."""
        return None


def _decision(decided: object) -> Decision:
    """Return what a function has decided.

    Raises:
        TypeError: it is neither a bool nor a text.
    """
    if isinstance(decided, bool):
        return Decision(decided)
    if isinstance(decided, str):
        return Decision(is_approved=False, message=decided)
    raise TypeError(f"a function that approves calls returns a bool or a text, not {type(decided).__name__}")
