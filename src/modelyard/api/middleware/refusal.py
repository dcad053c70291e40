"""Refuses a request before it reaches a route."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from modelyard.api.errors.rendering import error_response
from modelyard.errors import ModelyardError


async def refuse(refusal: ModelyardError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error in the dialect of the path; close a WebSocket."""
    if scope["type"] == "websocket":
        await WebSocketClose(1008)(scope, receive, send)
    else:
        await error_response(refusal, scope["path"])(scope, receive, send)
