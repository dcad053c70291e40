"""POST /v1/rerank, compatible with Jina, Cohere and llama.cpp, and /v2/rerank for Cohere's client."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelyard.api.openai.embeddings import MAX_INPUTS
from modelyard.api.openai.schema import IGNORED, MAX_NAME_LENGTH, refuse_unsupported
from modelyard.api.openapi.answers_rerank import RankedDocument, RankedDocuments
from modelyard.api.services import Services
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.wait_options import KeepAlive, wait_options_of
from modelyard.yard.requests.one_shot import Ranking
from modelyard.yard.requests.requests import RankRequest, WaitOptions
from modelyard.yard.yard import Yard

# Fields of Cohere's that are not supported -> their values without an effect.
RERANK_HARMLESS: Final[Mapping[str, tuple[Any, ...]]] = {
    "relevant_spans": (),
    "rank_fields": ([],),
    "max_chunks_per_doc": (),
    "priority": (0,),
}


def _text_of(document: Any) -> Any:
    """Return the text of a document; Jina and Cohere also take an object with one."""
    return document["text"] if isinstance(document, dict) and document.keys() == {"text"} else document


Document = Annotated[str, BeforeValidator(_text_of, json_schema_input_type=str | dict[str, str])]


class RerankBody(BaseModel):
    """The body of ``POST /v1/rerank``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    known_extras: ClassVar = frozenset(RERANK_HARMLESS)

    query: Document = Field(min_length=1, description="The query: a text, or an object with a `text`.")
    documents: list[Document] = Field(
        min_length=1,
        max_length=MAX_INPUTS,
        fail_fast=True,
        description="Texts to rank, or objects with a `text`.",
    )
    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    top_n: int | None = Field(
        default=None, ge=1, description="Number of documents in the answer, the best first. Unset: all."
    )
    return_documents: bool | None = Field(default=None, description="Whether the answer repeats the documents.")
    max_tokens_per_doc: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Longer documents are cut, also those that are too long for the model. Unset: those are refused.",
    )
    user: str | None = IGNORED
    keep_alive: KeepAlive | None = None

    def request(self, options: WaitOptions) -> RankRequest:
        """Return the request for the yard."""
        return RankRequest(self.query, tuple(self.documents), self.model, self.max_tokens_per_doc, options)

    def checked(self) -> None:
        """Refuse known fields that are not supported, unless their value has no effect.

        Raises:
            InvalidRequest: such a field has another value.
        """
        refuse_unsupported(self, RERANK_HARMLESS)


def rerank_body(ranking: Ranking, body: RerankBody) -> RankedDocuments:
    """Return the answer, with the best document first."""
    results: list[RankedDocument] = []
    for index in ranking.best(body.top_n):
        result: RankedDocument = {"index": index, "relevance_score": float(ranking.scores[index])}
        if body.return_documents:
            result["document"] = {"text": body.documents[index]}
        results.append(result)
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "object": "list",
        "model": ranking.model,
        "results": results,
        "usage": {"prompt_tokens": ranking.prompt_tokens, "total_tokens": ranking.prompt_tokens},
        "meta": {"tokens": {"input_tokens": ranking.prompt_tokens}},
    }


router = APIRouter(route_class=JsonRoute)


@router.post("/rerank", response_model=None)
@router.post("/v2/rerank", response_model=None)
@router.post("/v1/rerank", response_model=None)
async def rerank(body: RerankBody, http: HttpRequest) -> Response:
    """Sort documents by how well they answer a query."""
    body.checked()
    request = body.request(wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(_rank, Services.of(http).yard, request, body))


async def _rank(yard: Yard, request: RankRequest, body: RerankBody) -> bytes:
    """Compute the body of the answer."""
    return orjson.dumps(rerank_body(await yard.rank(request), body))
