"""OpenAI's endpoints for the generation of speech and images: they answer with an error that says why."""

from __future__ import annotations

from typing import NoReturn

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from modelyard.api.middleware.authorization import needs
from modelyard.api.request_context import RequestContext
from modelyard.errors import UnsupportedOperation

router = APIRouter()


@router.post("/v1/images/variations", include_in_schema=False, response_model=None)
@router.post("/v1/images/edits", include_in_schema=False, response_model=None)
@router.post("/v1/images/generations", include_in_schema=False, response_model=None)
@router.post("/v1/audio/speech", include_in_schema=False, response_model=None)
@needs("inference")
async def refuse(http: HttpRequest) -> NoReturn:
    """Answer 400, whatever was sent."""
    path = RequestContext.of(http.scope).route
    product = "speech" if path == "/v1/audio/speech" else "pictures"
    raise UnsupportedOperation(
        f"{path}: Modelyard serves no models that make {product} (kind = 'speech' and 'diffusion'). Its models answer "
        "in text: GET /v1/models lists what they take.",
        "model",
    )
