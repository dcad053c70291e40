"""Responses with one body, which a model computes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.serving.streaming import while_connected


class JsonResponse(Response):
    """Computes a body and sends it; a disconnect of the client cancels the computation.

    Args:
        compute: returns the body. Its exceptions are raised before the status is sent.
        media_type: media type of the body.
    """

    def __init__(self, compute: Callable[[], Coroutine[Any, Any, bytes]], media_type: str = "application/json") -> None:
        super().__init__()
        self._compute, self._media_type = compute, media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compute the body and send the response."""

        async def respond() -> None:
            await Response(await self._compute(), media_type=self._media_type)(scope, receive, send)

        await while_connected(receive, respond())
