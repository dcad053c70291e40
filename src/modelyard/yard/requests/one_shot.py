"""One request that is answered at once, with vectors, scores or tokens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.errors import ModelyardError, ShuttingDown
from modelyard.protocol.events import Answered, Cancelled, Embedded, Failed, Finished, Ranked, SequenceEvent, Tokenized
from modelyard.yard.requests.account import MeteredRequest
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.requests.timings import RequestTimings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The vectors of texts.

    Attributes:
        model: id of the model that computed them.
        vectors: [inputs, dimensions], each of length 1.
        prompt_tokens: tokens of all inputs.
    """

    model: str
    vectors: npt.NDArray[np.float32]
    prompt_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """How well documents answer a query.

    Attributes:
        model: id of the model that scored them.
        scores: [documents], each from 0 to 1, in the order of the documents.
        prompt_tokens: tokens of all documents, each with the query.
    """

    model: str
    scores: npt.NDArray[np.float32]
    prompt_tokens: int

    def best(self, limit: int | None) -> list[int]:
        """Return the indices of at most ``limit`` documents, the best first, equal ones in their order."""
        order = sorted(range(len(self.scores)), key=lambda index: -self.scores[index])
        return order[:limit]


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The tokens of a text.

    Attributes:
        model: id of the model whose tokens they are.
        tokens: ids; those of images are below 0.
        pieces: the bytes that each stands for.
    """

    model: str
    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...]


class PendingResult(MeteredRequest):
    """The result of a request that is answered at once.

    Attributes:
        model: id of the model that answers.
        times: the times of its stages.
        finished: reason and usage, once the last event has arrived; None before, and where it failed.
    """

    def __init__(self, model: ModelId) -> None:
        self.model = model
        self.times = RequestTimings()
        self.finished: Finished | None = None
        self._outcome: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()

    def put(self, event: SequenceEvent) -> None:
        """Take the next event. Only from the event loop's thread."""
        if isinstance(event, Answered):
            self.finished = Finished(event.sequence, "stop", event.usage)
            self.record_usage(event.usage)
        elif isinstance(event, Failed | Cancelled):
            self.record_usage(event.usage)
        if self._outcome.done():
            # The caller was cancelled while it waited.
            return
        match event:
            case Embedded() | Ranked() | Tokenized():
                self._outcome.set_result(event)
            case Failed(_, error):
                self._outcome.set_exception(error)
            case Cancelled():
                self._outcome.set_exception(ShuttingDown())

    @property
    def is_over(self) -> bool:
        """Whether its last event has arrived."""
        return self._outcome.done() and not self._outcome.cancelled()

    async def _answer(self) -> Answered:
        try:
            return await self._outcome
        except ModelyardError as error:
            raise current_caller().visible_error(error) from None

    async def embedded(self) -> Embeddings:
        """Wait for the vectors, and return them.

        Raises:
            ModelyardError: the request was refused, or failed.
        """
        outcome = await self._answer()
        assert isinstance(outcome, Embedded)
        return Embeddings(self.model, outcome.vectors, outcome.prompt_tokens)

    async def ranked(self) -> Ranking:
        """Wait for the scores, and return them.

        Raises:
            ModelyardError: the request was refused, or failed.
        """
        outcome = await self._answer()
        assert isinstance(outcome, Ranked)
        return Ranking(self.model, outcome.scores, outcome.prompt_tokens)

    async def tokenized(self) -> Tokenization:
        """Wait for the tokens, and return them.

        Raises:
            ModelyardError: the request was refused, or failed.
        """
        outcome = await self._answer()
        assert isinstance(outcome, Tokenized)
        return Tokenization(self.model, outcome.tokens, outcome.pieces)
