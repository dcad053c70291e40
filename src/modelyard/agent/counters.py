"""Counters of the tools that the server has run: calls by outcome, and how long they took."""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal, get_args

from modelyard.agent.tools import ServerTool
from modelyard.yard.stats.counters import WAIT_BOUNDS, Histogram

MAX_COUNTED_TOOLS: Final = 1000
"""Tools that are counted by name. Servers that requests name could bring any number of them."""

OTHER_TOOLS: Final = ("other", "other")
"""Stands for all tools beyond these."""

CallOutcome = Literal["ok", "error", "cancelled", "not_run"]
"""How a call ended: its tool gave a result, or an error; it was cancelled with its answer; its tool was not run, as the
call was denied or malformed."""

OUTCOMES: Final[tuple[CallOutcome, ...]] = get_args(CallOutcome)

ToolName = tuple[str, str]
"""The server of a tool, and the tool's own name there."""


class ToolCounters:
    """Counts the calls of one application.

    Attributes:
        calls: by server, tool and outcome.
        duration_s: seconds that the tools ran, by server and tool.
    """

    def __init__(self) -> None:
        self.calls: Counter[tuple[ToolName, CallOutcome]] = Counter()
        self.duration_s: dict[ToolName, Histogram] = {}

    def record(self, tool: ServerTool, outcome: CallOutcome, ran_s: float | None) -> None:
        """Count a call that has ended; ``ran_s``: for how long its tool has run, None where it has not begun."""
        name = (tool.server, tool.own_name)
        if name not in self.duration_s:
            if len(self.duration_s) >= MAX_COUNTED_TOOLS:
                name = OTHER_TOOLS
            self.duration_s.setdefault(name, Histogram(WAIT_BOUNDS))
        self.calls[name, outcome] += 1
        if ran_s is not None:
            self.duration_s[name].observe(ran_s)
