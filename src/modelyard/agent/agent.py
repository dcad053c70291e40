"""What the answers of one application's agents share: the tools, the calls that wait for approvals, what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from modelyard.agent.approvals import ApprovalDesk, Decide
from modelyard.agent.counters import ToolCounters
from modelyard.agent.kept_turns import KeptTurns
from modelyard.agent.tools import ServerTool, ToolSource
from modelyard.yard.requests.context import Caller


@dataclass(frozen=True, slots=True)
class ToolSummary:
    """Numbers of tools that a model may call.

    Attributes:
        tools: all of them.
        mcp_tools: those of MCP servers; None: no MCP server is configured.
        mcp_servers: MCP servers that are connected; None: none is configured.
    """

    tools: int
    mcp_tools: int | None
    mcp_servers: int | None


@dataclass(frozen=True, slots=True)
class Agent:
    """The state that all answers of agents share.

    Attributes:
        sources: where tools of the server come from.
        approvals: calls that wait for their approval.
        kept_turns: turns of answers that clients do not see.
        counters: of the calls.
    """

    sources: tuple[ToolSource, ...] = ()
    approvals: ApprovalDesk = field(default_factory=ApprovalDesk)
    kept_turns: KeptTurns = field(default_factory=KeptTurns)
    counters: ToolCounters = field(default_factory=ToolCounters)

    @staticmethod
    def of(sources: Sequence[ToolSource], decide: Decide | None = None) -> Agent:
        """Return a new agent with the tools of ``sources``, whose calls ``decide`` may approve."""
        return Agent(tuple(sources), ApprovalDesk(decide))

    def guarded(self, tools: Iterable[ServerTool], model: str) -> dict[str, ServerTool]:
        """Return tools of ``model`` by name; each needs an approval where all calls of the model wait for one."""
        always = self.approvals.asks_always(model)
        return {tool.name: replace(tool, needs_approval=True) if always else tool for tool in tools}

    def tools(self, model: str, caller: Caller) -> tuple[ServerTool, ...]:
        """Return the tools that ``model``, by id, may call for ``caller``; of two with one name, the first."""
        tools: dict[str, ServerTool] = {}
        for source in self.sources:
            for tool in source.tools(model, caller):
                tools.setdefault(tool.name, tool)
        return tuple(self.guarded(tools.values(), model).values())

    def summary(self, model: str, caller: Caller) -> ToolSummary | None:
        """Return how many tools ``model``, by id, may call for ``caller``; None where there is no source of tools."""
        found: dict[str, bool] = {}
        servers: int | None = None
        for source in self.sources:
            connected = source.connected_servers(model, caller)
            if connected is not None:
                servers = (servers or 0) + connected
            for tool in source.tools(model, caller):
                found.setdefault(tool.name, connected is not None)
        if servers is None and not found:
            return None
        return ToolSummary(len(found), None if servers is None else sum(found.values()), servers)
