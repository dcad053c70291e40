"""Answers that are one body, and take as long as a model takes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelyard.api.serving.streaming import while_connected


class JsonResponse(Response):
    """What a model is asked and answers at once: done and sent, unless the client leaves.

    Args:
        ask: gives the body of the answer. What it raises is raised before the status is sent.
        media_type: of the body.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, bytes]], media_type: str = "application/json") -> None:
        super().__init__()
        self._ask, self._media_type = ask, media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do it."""

        async def answer() -> None:
            await Response(await self._ask(), media_type=self._media_type)(scope, receive, send)

        await while_connected(receive, answer())
