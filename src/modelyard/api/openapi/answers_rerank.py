"""Answers of the reranking endpoint."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class RankedText(TypedDict):
    """A document, as it was sent."""

    text: str


class RankedDocument(TypedDict):
    """How well one document answers."""

    index: int
    relevance_score: float
    document: NotRequired[RankedText]


class RankingUsage(TypedDict):
    """Tokens of all documents, each with the query."""

    prompt_tokens: int
    total_tokens: int


class RankingTokens(TypedDict):
    """The same, in Cohere's words."""

    input_tokens: int


class RankingMeta(TypedDict):
    """What Cohere's client expects beside the results."""

    tokens: RankingTokens


class RankedDocuments(TypedDict):
    """Documents, the best first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RankedDocument]
    usage: RankingUsage
    meta: RankingMeta
