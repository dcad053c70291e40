"""The tools of the server that one HTTP request may use."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from modelyard.agent.agent import Agent
from modelyard.agent.tools import ServerTool
from modelyard.errors import InvalidRequest
from modelyard.yard.requests.context import current_caller
from modelyard.yard.yard import Yard

TOOLS_HEADER: Final = "X-Tools"
"""The request header with which a request does without the tools of the server: ``off``."""


def server_tools(http: Request, yard: Yard, agent: Agent, model: str | None) -> tuple[ServerTool, ...]:
    """Return the tools of the server that a request may use; none where it does without.

    Args:
        http: the request.
        yard: the models.
        agent: the tools.
        model: as the request names it.

    Raises:
        InvalidRequest: its header X-Tools is neither "on" nor "off".
        ModelNotFound, ModelRequired: there is no such model.
    """
    return known_tools(yard, agent, model) if wants_tools(http) else ()


def known_tools(yard: Yard, agent: Agent, model: str | None) -> tuple[ServerTool, ...]:
    """Return the tools of the server that a model may call for the caller.

    Raises:
        ModelNotFound, ModelRequired: there is no such model.
    """
    return agent.tools(yard.configured(model).id, current_caller()) if agent.sources else ()


def wants_tools(http: Request) -> bool:
    """Whether the header X-Tools of a request lets its model call tools of the server.

    Raises:
        InvalidRequest: it is neither "on" nor "off".
    """
    wanted = http.headers.get(TOOLS_HEADER, "on").strip().lower()
    if wanted not in ("on", "off"):
        raise InvalidRequest(f"The header {TOOLS_HEADER} must be 'on' or 'off'.", TOOLS_HEADER)
    return wanted == "on"
