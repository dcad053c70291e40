"""Chat completions of a scripted server."""

from __future__ import annotations

import json
from typing import Any

from support.scripted_server import ScriptedServer, call

USER = {"role": "user", "content": "What is 1 + 2?"}
SUM = call("calc_add", a=1, b=2)


async def chat(server: ScriptedServer, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The whole answer."""
    answer = await server.post("/v1/chat/completions", messages=[*(messages or [USER])], **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def chunks(server: ScriptedServer, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of the streamed answer."""
    answer = await server.post("/v1/chat/completions", messages=[USER], stream=True, **fields)
    assert answer.status_code == 200, answer.text
    frames = [frame.removeprefix("data: ") for frame in answer.text.split("\n\n") if frame.startswith("data: ")]
    assert frames.pop() == "[DONE]"
    return [json.loads(frame) for frame in frames]


def text_of(read: list[dict[str, Any]]) -> str:
    """The content that chunks add up to."""
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in read if chunk["choices"])


def news_of(read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the chunks report about calls."""
    names = ("agentic_tool_call_progress", "agentic_tool_approval_required")
    return [chunk[name] for chunk in read for name in names if name in chunk]
