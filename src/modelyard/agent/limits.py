"""Bounds of an agent's answer, by the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.config import Config


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """Bounds of each answer.

    Attributes:
        max_rounds: rounds in which a model may call tools of the server.
        approval_timeout_s: how long a call waits for its approval.
    """

    max_rounds: int
    approval_timeout_s: float


def limits_of(config: Config) -> AgentLimits:
    """Return the bounds that ``config`` sets."""
    return AgentLimits(config.server.max_tool_rounds, config.mcp.approval_timeout)
