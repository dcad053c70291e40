"""Bounds of an agent's answer, by the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelyard.config import Config

DEFAULT_TOOL_ROUNDS: Final = 32
DEFAULT_APPROVAL_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """Bounds of each answer.

    Attributes:
        max_rounds: rounds in which a model may call tools of the server.
        approval_timeout_s: how long a call waits for its approval.
    """

    max_rounds: int = DEFAULT_TOOL_ROUNDS
    approval_timeout_s: float = DEFAULT_APPROVAL_TIMEOUT_S


def limits_of(config: Config) -> AgentLimits:
    """Return the bounds that ``config`` sets."""
    mcp = getattr(config, "mcp", None)
    return AgentLimits(
        getattr(config.server, "max_tool_rounds", None) or DEFAULT_TOOL_ROUNDS,
        getattr(mcp, "approval_timeout", None) or DEFAULT_APPROVAL_TIMEOUT_S,
    )
