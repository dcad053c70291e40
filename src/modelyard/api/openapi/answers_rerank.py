"""Schemas of the answers of the reranking endpoint, for the documentation."""

from __future__ import annotations

from typing import Literal, NotRequired

from pydantic import RootModel
from typing_extensions import TypedDict


class RankedText(TypedDict):
    """A document of the request."""

    text: str


class RankedDocument(TypedDict):
    """How well one document answers the query."""

    index: int
    relevance_score: float
    document: NotRequired[RankedText]


class RankingUsage(TypedDict):
    """Token counts of all pairs of the query and a document."""

    prompt_tokens: int
    total_tokens: int


class RankingTokens(TypedDict):
    """Token counts in Cohere's field."""

    input_tokens: int


class RankingMeta(TypedDict):
    """Metadata for Cohere's client."""

    tokens: RankingTokens


class RankedDocuments(TypedDict):
    """Documents, the best first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RankedDocument]
    usage: RankingUsage
    meta: RankingMeta


class ScoredText(TypedDict):
    """A text and its score, in the shape of text-embeddings-inference."""

    index: int
    score: float
    text: NotRequired[str]


class RerankAnswer(RootModel[RankedDocuments | list[ScoredText]]):
    """The ranked documents; for a request with `texts`, a list of their scores."""
