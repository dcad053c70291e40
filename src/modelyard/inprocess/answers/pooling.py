"""Answers of models that embed or rank.

Source: OpenAI, API reference, "Embeddings"; Jina and Cohere, "Rerank".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import PrivateAttr, computed_field

from modelyard.inprocess.answers.base import Answer, in_repr
from modelyard.inprocess.answers.usage import PooledUsage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class RankedText(Answer):
    """A document of the request."""

    text: str

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield None, in_repr(self.text)


class RankedDocument(Answer):
    """How well one document answers a query.

    Attributes:
        index: index of the document in the request.
        relevance_score: from 0 to 1.
        document: the document, if the request has ``return_documents``.
    """

    index: int
    relevance_score: float
    document: RankedText | None = None


class RerankResponse(Answer):
    """Documents by how well they answer a query.

    Attributes:
        results: the best document first.
        model: id of the reranker.
        usage: tokens of all pairs of the query and a document.
    """

    id: str
    results: list[RankedDocument]
    model: str
    usage: PooledUsage
    object: Literal["list"] = "list"


class Embedding(Answer):
    """One text as a vector of length 1."""

    index: int
    embedding: list[float]
    object: Literal["embedding"] = "embedding"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "index", self.index
        yield "dimensions", len(self.embedding)


class EmbeddingResponse(Answer):
    """Texts as vectors.

    Attributes:
        model: id of the embedding model.
        usage: tokens of all inputs.
    """

    model: str
    usage: PooledUsage
    object: Literal["list"] = "list"
    # Lists of numbers take five times the memory, and are made where they are read.
    _vectors: npt.NDArray[np.float32] = PrivateAttr()

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float32], model: str, usage: PooledUsage) -> Self:
        """Build from the vectors: [inputs, dimensions]."""
        response = cls(model=model, usage=usage, object="list")
        response._vectors = vectors
        return response

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The vectors: [inputs, dimensions], 32-bit floats, each row of length 1."""
        return self._vectors

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def data(self) -> list[Embedding]:
        """The vectors in OpenAI's shape, as lists of numbers."""
        return [
            Embedding.model_construct(index=index, embedding=vector, object="embedding")
            for index, vector in enumerate(self._vectors.tolist())
        ]

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, EmbeddingResponse):
            return NotImplemented
        same = (self.model, self.usage) == (other.model, other.usage)
        return same and bool((self._vectors.shape == other._vectors.shape) and (self._vectors == other._vectors).all())

    __hash__ = None  # type: ignore[assignment]

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "vectors", self._vectors.shape
        yield "model", self.model
        yield "usage", self.usage
