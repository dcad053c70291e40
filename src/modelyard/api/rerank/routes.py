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
from modelyard.api.openapi.answers_rerank import RankedDocument, RankedDocuments, ScoredText
from modelyard.api.services import Services
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.wait_options import KeepAlive, wait_options_of
from modelyard.errors import InvalidRequest
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


Documents = Annotated[list[Document], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]


class RerankBody(BaseModel):
    """The body of ``POST /v1/rerank``."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)
    known_extras: ClassVar = frozenset(RERANK_HARMLESS)

    query: Document = Field(min_length=1, description="The query: a text, or an object with a `text`.")
    documents: Documents | None = Field(default=None, description="Texts to rank, or objects with a `text`.")
    texts: Documents | None = Field(
        default=None,
        description="The name of `documents` in the API of text-embeddings-inference; the answer is then a list of "
        "`index` and `score`.",
    )
    model: str | None = Field(
        default=None, max_length=MAX_NAME_LENGTH, description="Id or alias; omitted or 'default': the default model."
    )
    top_n: int | None = Field(
        default=None, ge=1, description="Number of documents in the answer, the best first. Unset: all."
    )
    return_text: bool | None = Field(default=None, description="Whether the answer repeats the `texts`.")
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
        return RankRequest(self.query, tuple(self.ranked), self.model, self.max_tokens_per_doc, options)

    @property
    def ranked(self) -> list[str]:
        """The texts to rank."""
        return self.documents or self.texts or []

    def checked(self) -> None:
        """Refuse known fields that are not supported, unless their value has no effect.

        Raises:
            InvalidRequest: such a field has another value, or there is not exactly one list of texts.
        """
        refuse_unsupported(self, RERANK_HARMLESS)
        if (self.documents is None) is (self.texts is None):
            raise InvalidRequest("Send the texts to rank in 'documents', or in 'texts', not in both.", "documents")


def rerank_body(ranking: Ranking, body: RerankBody) -> RankedDocuments:
    """Return the answer, with the best document first."""
    results: list[RankedDocument] = []
    for index in ranking.best(body.top_n):
        result: RankedDocument = {"index": index, "relevance_score": float(ranking.scores[index])}
        if body.return_documents:
            result["document"] = {"text": body.ranked[index]}
        results.append(result)
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "object": "list",
        "model": ranking.model,
        "results": results,
        "usage": {"prompt_tokens": ranking.prompt_tokens, "total_tokens": ranking.prompt_tokens},
        "meta": {"tokens": {"input_tokens": ranking.prompt_tokens}},
    }


def scored_texts(ranking: Ranking, body: RerankBody) -> list[ScoredText]:
    """Return the answer in the shape of text-embeddings-inference, with the best text first.

    Source: https://huggingface.github.io/text-embeddings-inference/, "POST /rerank".
    """
    results: list[ScoredText] = []
    for index in ranking.best(body.top_n):
        result: ScoredText = {"index": index, "score": float(ranking.scores[index])}
        if body.return_text:
            result["text"] = body.ranked[index]
        results.append(result)
    return results


router = APIRouter(route_class=JsonRoute)


@router.post("/rerank", response_model=None)
@router.post("/v2/rerank", response_model=None)
@router.post("/v1/rerank", response_model=None)
async def rerank(body: RerankBody, http: HttpRequest) -> Response:
    """Sort documents by how well they answer a query."""
    body.checked()
    request = body.request(wait_options_of(http, body.keep_alive))
    return JsonResponse(partial(ranked, Services.of(http).yard, request, body))


@router.post("/reranking", response_model=None)
@router.post("/v1/reranking", response_model=None)
async def reranking(body: RerankBody, http: HttpRequest) -> Response:
    """Sort documents by how well they answer a query: llama.cpp's other name for `/rerank`."""
    return await rerank(body, http)


async def ranked(yard: Yard, request: RankRequest, body: RerankBody) -> bytes:
    """Compute the body of the answer.

    Raises:
        ModelyardError: as ``Yard.rank``.
    """
    ranking = await yard.rank(request)
    return orjson.dumps(rerank_body(ranking, body) if body.texts is None else scored_texts(ranking, body))
