"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema

from modelyard.api.openai.schema import IGNORED, MAX_NAME_LENGTH
from modelyard.api.services import Services
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.wait_options import KeepAlive, wait_options_of
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Text, Tokens
from modelyard.yard.requests.one_shot import Embeddings
from modelyard.yard.requests.requests import EmbeddingRequest, WaitOptions
from modelyard.yard.yard import Yard

# Source: OpenAI, API reference, embeddings: "the array must be 2048 dimensions or less".
MAX_INPUTS = 2048


# Items are validated after parsing, so that the error can name the item.
EmbeddingInput = Annotated[
    str | list[Any] | dict[str, Any],
    WithJsonSchema(
        TypeAdapter(str | list[str | dict[str, Any]] | list[int] | list[list[int]] | dict[str, Any]).json_schema()
    ),
]


class EmbeddingsBody(BaseModel):
    """The body of ``POST /v1/embeddings``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    input: EmbeddingInput = Field(
        description="A text, texts, token ids, or lists of token ids. A text may also be an object with `content`, a "
        "list of parts of type `text`, or llama.cpp's `prompt_string`."
    )
    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="`base64`: the 32-bit floats of each vector, little-endian."
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="Must be the model's own number of dimensions: vectors are not shortened."
    )
    user: str | None = IGNORED
    keep_alive: KeepAlive | None = None

    def request(self, options: WaitOptions) -> EmbeddingRequest:
        """Return the request for the yard.

        Raises:
            InvalidRequest: there are no inputs or too many, or one is neither text nor token ids.
        """
        return EmbeddingRequest(embedding_inputs(self.input, "input"), self.model, options)


def embedding_inputs(inputs: str | list[Any] | dict[str, Any], param: str) -> tuple[Text | Tokens, ...]:
    """Return the inputs in the field ``param``: texts, or token ids.

    Raises:
        InvalidRequest: there are none or too many, or one is neither text nor token ids.
    """
    if isinstance(inputs, str | dict):
        return (_input(inputs, param),)
    if not inputs:
        raise InvalidRequest(f"'{param}' is empty. Send a text, or a list of texts.", param)
    if _are_ids(inputs):
        return (Tokens(tuple(inputs)),)
    if len(inputs) > MAX_INPUTS:
        raise InvalidRequest(
            f"'{param}' has {len(inputs)} elements, but at most {MAX_INPUTS} are allowed in one request. "
            "Send several requests.",
            param,
        )
    return tuple(_input(item, f"{param}[{index}]") for index, item in enumerate(inputs))


def _input(item: Any, param: str) -> Text | Tokens:
    if isinstance(item, str):
        return _text(item, param)
    if isinstance(item, list) and _are_ids(item):
        if not item:
            raise InvalidRequest(f"'{param}' is empty. Leave it out.", param)
        return Tokens(tuple(item))
    match item:
        case {"prompt_string": str(text)} if not item.get("multimodal_data"):
            return _text(text, param)
        case {"content": [*parts]} if parts:
            return _text("".join(_part_text(part, f"{param}.content[{at}]") for at, part in enumerate(parts)), param)
    raise InvalidRequest(
        f"'{param}' must be a text, a list of token ids, or an object with 'content', a list of parts of type 'text'.",
        param,
    )


def _part_text(part: Any, param: str) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
    raise InvalidRequest(
        f"'{param}' must be a part of type 'text' with its 'text': embeddings are made of texts.", param
    )


def _text(text: str, param: str) -> Text:
    if not text:
        raise InvalidRequest(f"'{param}' is an empty text, which has no embedding. Leave it out.", param)
    return Text(text)


def _are_ids(items: list[Any]) -> bool:
    # Not isinstance: bool is a subclass of int.
    return all(type(item) is int for item in items)


def _embeddings_body(embeddings: Embeddings, *, as_base64: bool) -> bytes:
    """Return the body of the answer as JSON."""
    encoded = map(_base64, embeddings.vectors) if as_base64 else embeddings.vectors
    usage = {"prompt_tokens": embeddings.prompt_tokens, "total_tokens": embeddings.prompt_tokens}
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(encoded)]
    answer = {"object": "list", "data": data, "model": embeddings.model, "usage": usage}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _base64(vector: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def check_dimensions(embeddings: Embeddings, requested: int | None) -> None:
    """Refuse a request for another number of dimensions than the model has.

    Raises:
        InvalidRequest: ``requested`` is set and differs.
    """
    dimensions = embeddings.vectors.shape[1]
    if requested not in (None, dimensions):
        raise InvalidRequest(
            f"'dimensions' is {requested}, but the embeddings of '{embeddings.model}' have {dimensions} dimensions and "
            "are not cut. Leave it out.",
            "dimensions",
        )


router = APIRouter(route_class=JsonRoute)


@router.post("/v1/embeddings", response_model=None)
async def create_embeddings(body: EmbeddingsBody, http: HttpRequest) -> Response:
    """Turn texts into vectors."""
    request = body.request(wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(embedded, Services.of(http).yard, request, body))


async def embedded(yard: Yard, request: EmbeddingRequest, body: EmbeddingsBody) -> bytes:
    """Compute the body of the answer.

    Raises:
        ModelyardError: as ``Yard.embed``; also where the model has another number of dimensions than is asked for.
    """
    embeddings = await yard.embed(request)
    check_dimensions(embeddings, body.dimensions)
    return _embeddings_body(embeddings, as_base64=body.encoding_format == "base64")
