"""Text completions in process, whole and as streams, through the same calls of the yard as over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from modelyard.api.openai.chunks import Identity
from modelyard.api.openai.completions import CompletionEncoder, text_choices, text_requests
from modelyard.api.openai.schema import CompletionRequest
from modelyard.api.serving.streaming import whole_answer
from modelyard.inprocess.answers import Completion
from modelyard.inprocess.choices import Accepting, chunk_fields
from modelyard.protocol.events import Finished
from modelyard.yard.requests.requests import Request, WaitOptions
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.yard import Yard


class Completions:
    """Continues texts with the models of ``yard``."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard

    async def whole(self, body: CompletionRequest) -> Completion:
        """Return all continuations that ``body`` asks for.

        Raises:
            ModelyardError: as ``Yard.generate``.
        """
        answer, _ = await whole_answer(self._yard, text_choices(body, to_requests(body)))
        return Completion.model_validate(answer)

    async def chunks(
        self, body: CompletionRequest, requests: Sequence[Request], accepting: Accepting
    ) -> AsyncGenerator[Completion]:
        """Yield the continuations in pieces; closing the generator cancels the generation.

        Args:
            body: the request as it came.
            requests: the same request for the yard, once for each choice of each prompt.
            accepting: waits until the answer begins.

        Raises:
            ModelyardError: as ``Yard.generate``, also in the middle of the answer.
        """
        identity = Identity("cmpl")

        def make_writer(generation: TokenStream, index: int) -> _CompletionWriter:
            encoder = CompletionEncoder(body, identity, [], index)
            encoder.open(generation)
            return _CompletionWriter(encoder)

        fields = chunk_fields(
            self._yard,
            requests,
            identity,
            make_writer,
            accepting,
            choices=body.choices,
            timings_per_token=bool(body.timings_per_token),
        )
        async with aclosing(fields):
            async for each in fields:
                yield Completion.model_validate(each)


def to_requests(body: CompletionRequest) -> list[Request]:
    """Return ``body`` as requests to the yard, one for each choice of each prompt.

    Raises:
        InvalidRequest: the value of a field is not supported.
    """
    return text_requests(body, WaitOptions(keep_alive_s=body.keep_alive))


class _CompletionWriter:
    def __init__(self, encoder: CompletionEncoder) -> None:
        self._encoder = encoder

    def opening(self) -> Iterator[Mapping[str, Any]]:
        return iter(())

    def pieces(self, text: str) -> Iterator[Mapping[str, Any]]:
        yield self._encoder.part(text, None)

    def closing(self, finished: Finished) -> Iterator[Mapping[str, Any]]:
        yield self._encoder.part("", finished.reason)
