"""POST /embedding of llama.cpp's server.

Source: llama.cpp, tools/server/README.md, "POST /embedding", and common/common.cpp, common_embd_normalize.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.openai.embeddings import EmbeddingInput, embedding_inputs
from modelyard.api.openai.schema import MAX_NAME_LENGTH
from modelyard.api.services import Services
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.wait_options import KeepAlive, wait_options_of
from modelyard.errors import InvalidRequest
from modelyard.yard.requests.requests import EmbeddingRequest
from modelyard.yard.yard import Yard

_MAX_NORM: Final = 1000
_EUCLIDEAN: Final = 2

# The largest number after scaling by the largest one: what a 16-bit integer holds, as in llama.cpp.
_INT16_SCALE: Final = 32760.0


class EmbeddingBody(BaseModel):
    """The body of ``POST /embedding``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    content: EmbeddingInput | None = Field(default=None, description="A text, texts, token ids, or lists of token ids.")
    input: EmbeddingInput | None = Field(default=None, description="OpenAI's name for `content`.")
    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    embd_normalize: int | None = Field(
        default=None,
        le=_MAX_NORM,
        description="0: the largest number becomes 32760; 1: the absolute numbers add up to 1; 2, and unset: length 1; "
        "p: p-norm 1. -1 is refused: vectors have length 1.",
    )
    keep_alive: KeepAlive | None = None

    def request(self) -> EmbeddingRequest:
        """Return the request for the yard.

        Raises:
            InvalidRequest: there is no input, or a field asks for something that is not supported.
        """
        if self.embd_normalize is not None and self.embd_normalize < 0:
            raise InvalidRequest(
                "'embd_normalize' is below 0: vectors without normalisation are not kept. Leave it out.",
                "embd_normalize",
            )
        param = "input" if self.content is None else "content"
        value = self.input if self.content is None else self.content
        if value is None:
            raise InvalidRequest("'content' is missing. Send a text, or a list of texts.", "content")
        return EmbeddingRequest(embedding_inputs(value, param), self.model)


def normalized(vectors: npt.NDArray[np.float32], norm: int) -> npt.NDArray[np.float32]:
    """Return [inputs, dimensions] vectors of length 1 in llama.cpp's normalisation ``norm``, which is 0 or above."""
    if norm == _EUCLIDEAN:
        return vectors
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    largest[largest == 0] = 1.0
    # Divided by the largest number first: high powers of small numbers are 0.
    scaled: npt.NDArray[np.float32] = vectors / largest
    if norm == 0:
        return scaled * np.float32(_INT16_SCALE)
    lengths: npt.NDArray[np.float32] = (np.abs(scaled) ** norm).sum(axis=1, keepdims=True) ** (1 / norm)
    lengths[lengths == 0] = 1.0
    return scaled / lengths


router = APIRouter(route_class=JsonRoute)


@router.post("/embedding", response_model=None)
async def embed_content(body: EmbeddingBody, http: HttpRequest) -> Response:
    """Turn texts into vectors, in llama.cpp's own shape."""
    request = replace(body.request(), wait_options=wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(_embed, Services.of(http).yard, request, body))


async def _embed(yard: Yard, request: EmbeddingRequest, body: EmbeddingBody) -> bytes:
    """Compute the body of the answer."""
    embeddings = await yard.embed(request)
    norm = _EUCLIDEAN if body.embd_normalize is None else body.embd_normalize
    vectors = normalized(embeddings.vectors, norm)
    answer = [{"index": index, "embedding": [vector]} for index, vector in enumerate(vectors)]
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
