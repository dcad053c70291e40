"""Texts as their tokens, for those who ask for no more.

On threads beside the engine's: a megabyte of text takes seconds, which no stream is to wait for. llama.cpp only reads
the vocabulary there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from modelyard.engine.input.reading_pool import ReadingPool
from modelyard.engine.messages import Cancelled, Event, Failed, Returned, SequenceId, Stop, Tokenize, Tokenized
from modelyard.engine.prompt import PromptReader, check_length
from modelyard.engine.question import Chat, Text, Tokens, media_of
from modelyard.errors import EngineError, InvalidRequest, ModelyardError, UnsupportedOperation

logger = logging.getLogger(__name__)

# In characters, of which llama.cpp tokenises 0.1 to 4 million in a second.
LONGEST_TEXT: Final = 1 << 20


class Spells(Protocol):
    """The part of ``llama.Model`` that is needed here. All of it may be called on any thread."""

    vocab_size: int

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Token ids of ``text``."""

    def spell(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""


class Speller:
    """Answers the Tokenize requests of one engine. Its methods run on the engine's thread.

    Args:
        name: of the model, for messages.
        model: whose vocabulary it is.
        publish: takes the events; called on any thread.
        prompts: reads chats as the model is shown them; None where it takes none.
        long_prompts: reads them also where they are longer than the model's context.
    """

    def __init__(
        self,
        name: str,
        model: Spells,
        publish: Callable[[Sequence[Event]], None],
        prompts: PromptReader | None = None,
        long_prompts: PromptReader | None = None,
    ) -> None:
        self._name, self._model, self._publish = name, model, publish
        self._prompts, self._long_prompts = prompts, long_prompts
        self._pool = ReadingPool(name)
        self._pending: dict[SequenceId, Future[None]] = {}

    def take(self, request: Tokenize) -> None:
        """Begin to answer a request."""
        if self._prompts is not None and media_of(request.prompt):
            # What looks at images and listens to sound belongs to the engine's thread, and takes what a prompt takes.
            self._answer(request, self._prompts)
            return
        self._pending = {sequence: future for sequence, future in self._pending.items() if not future.done()}
        self._pending[request.sequence] = self._pool.submit(lambda: self._answer(request, self._long_prompts))

    def cancel(self, sequence: SequenceId) -> None:
        """Forget a request that was not begun; one that was ends by itself."""
        future = self._pending.pop(sequence, None)
        if future is not None and future.cancel():
            self._publish([Cancelled(sequence)])

    def leave(self, stop: Stop) -> None:
        """Part with all requests: where they are suspended, they leave as they came."""
        self._end_all(Returned if stop.suspend else Cancelled)

    def fail(self, error: ModelyardError) -> None:
        """End all requests with ``error``."""
        self._end_all(lambda sequence: Failed(sequence, error))

    def close(self) -> None:
        """End the threads, before the model is freed."""
        self._pool.close()

    def _end_all(self, end: Callable[[SequenceId], Event]) -> None:
        ended = [end(sequence) for sequence, future in self._pending.items() if future.cancel()]
        self._pending.clear()
        if ended:
            self._publish(ended)
        self.close()

    def _answer(self, request: Tokenize, prompts: PromptReader | None) -> None:
        event: Event
        try:
            tokens = self._tokens(request, prompts)
            event = Tokenized(request.sequence, tuple(tokens), tuple(self._model.spell(tokens)))
        except ModelyardError as refused:
            event = Failed(request.sequence, refused)
        except Exception as failure:
            # The edge of the thread: a request without an end would be waited for until the server ends.
            logger.exception("The tokens of a text could not be told by %s", self._name)
            event = Failed(request.sequence, EngineError(self._name, f"{type(failure).__name__}: {failure}"))
        self._publish([event])

    def _tokens(self, request: Tokenize, prompts: PromptReader | None) -> Sequence[int]:
        match request.prompt:
            case Chat() as chat:
                if prompts is None:
                    raise UnsupportedOperation(f"'{self._name}' does not chat. Send the text itself.", "messages")
                return prompts.read(chat).tokens
            case Text(text):
                check_length(text, LONGEST_TEXT, "content")
                tokens = self._model.tokenize(
                    text, add_special=request.add_special, parse_special=request.parse_special
                )
                if min(tokens, default=0) < 0:
                    raise InvalidRequest(
                        "'content' has parts for which the model's vocabulary has no token.", "content"
                    )
                return tokens
            case Tokens(ids):
                for token in ids:
                    if not 0 <= token < self._model.vocab_size:
                        raise InvalidRequest(
                            f"'tokens' holds {token}, but this model's vocabulary has ids 0 to "
                            f"{self._model.vocab_size - 1}.",
                            "tokens",
                        )
                return ids
