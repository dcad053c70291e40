"""Responses of a scripted server whose model calls tools of the server."""

from __future__ import annotations

import asyncio
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import ConfigDict, TypeAdapter

# Built with its first use: that takes a while, in each process that collects tests.
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent, config=ConfigDict(defer_build=True))
CALC: Any = {"type": "mcp", "server_label": "calc"}


def kinds(response: Response) -> list[str]:
    """The types of the items, without the lists of tools."""
    return [item.type for item in response.output if item.type != "mcp_list_tools"]


def calls_of(response: Response) -> list[Any]:
    """The calls that the server has run."""
    return [item for item in response.output if item.type == "mcp_call"]


async def until_done(response_id: str) -> None:
    """Wait until a response is no longer generated in the background."""
    if running := [task for task in asyncio.all_tasks() if task.get_name() == response_id]:
        _, hanging = await asyncio.wait(running, timeout=20)
        assert not hanging
