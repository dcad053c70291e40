"""One request's answer as it arrives: events are put in on the event loop, text comes out."""

from __future__ import annotations

import asyncio

from modelyard.engine.messages import Accepted, Cancelled, Failed, Finished, SequenceEvent, Token
from modelyard.errors import ModelyardError, ShuttingDown


class Generation:
    """An answer that is being generated. Iterate it for its text, once.

    All text that arrived since the last look comes as one piece, so a slow reader costs no more than a fast one.

    Attributes:
        model: id of the model that answers.
        fingerprint: of the model and the backend, as OpenAI's ``system_fingerprint``.
        prompt_tokens: of the prompt, once it is accepted.
        finished: reason and usage, once the iteration is over.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.fingerprint = ""
        self.prompt_tokens = 0
        self.finished: Finished | None = None
        self._text: list[str] = []
        self._error: ModelyardError | None = None
        self._accepted = False
        self._wake = asyncio.Event()

    def put(self, event: SequenceEvent) -> None:
        """Take the next event; only from the event loop's thread."""
        match event:
            case Token(_, text):
                self._text.append(text)
            case Accepted(_, prompt_tokens):
                self._accepted, self.prompt_tokens = True, prompt_tokens
            case Finished():
                self.finished = event
            case Failed(_, error):
                self._error = error
            case Cancelled():
                self._error = ShuttingDown()
        self._wake.set()

    @property
    def is_over(self) -> bool:
        """Whether its last event has arrived."""
        return self.finished is not None or self._error is not None

    async def accepted(self) -> None:
        """Wait until the model is there and the prompt has passed all checks.

        Raises:
            ModelyardError: the request was refused.
        """
        while not self._accepted:
            if self._error is not None:
                raise self._error
            await self._next_event()

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> str:
        while not self._text:
            if self._error is not None:
                raise self._error
            if self.finished is not None:
                raise StopAsyncIteration
            await self._next_event()
        text, self._text = "".join(self._text), []
        return text

    async def text(self) -> str:
        """The whole answer."""
        return "".join([piece async for piece in self])

    async def _next_event(self) -> None:
        self._wake.clear()
        await self._wake.wait()
