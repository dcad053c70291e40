"""What OpenAI's clients ask of models that make speech or pictures: refused by name, since none here do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

from fastapi import APIRouter

from modelyard.api.middleware.authorization import needs
from modelyard.errors import UnsupportedOperation

_UNSERVED: Final = {
    "/v1/audio/speech": "speech",
    "/v1/images/generations": "pictures",
    "/v1/images/edits": "pictures",
    "/v1/images/variations": "pictures",
}


def unserved_routes() -> APIRouter:
    """Endpoints that answer 400 whatever they are asked. They are in no description."""
    router = APIRouter()
    for path, what in _UNSERVED.items():
        router.add_api_route(
            path, _refusing(path, what), methods=["POST"], include_in_schema=False, response_model=None
        )
    return router


def _refusing(path: str, what: str) -> Callable[[], Coroutine[Any, Any, NoReturn]]:
    @needs("inference")
    async def refuse() -> NoReturn:
        raise UnsupportedOperation(
            f"{path}: Modelyard serves no models that make {what} (kind = 'speech' and 'diffusion'). Its models answer "
            "in text: GET /v1/models lists what they take.",
            "model",
        )

    return refuse
