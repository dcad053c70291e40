"""Texts as their tokens, for those who ask for no more.

On threads beside the engine's: a megabyte of text takes seconds, which no stream is to wait for. llama.cpp only reads
the vocabulary there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol

from modelyard.engine.input.prompt_encoder import PromptReader, check_length
from modelyard.engine.input.reading_pool import ReadingPool, outcome_of
from modelyard.engine.messages import PromptRead
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.errors import EngineError, InvalidRequest, ModelyardError, UnsupportedOperation
from modelyard.protocol.events import Cancelled, Event, Failed, Publish, Returned, Tokenized
from modelyard.protocol.prompts import Chat, Text, Tokens, media_of
from modelyard.protocol.requests import Stop, Tokenize
from modelyard.protocol.values import SequenceId

logger = logging.getLogger(__name__)

# In characters, of which llama.cpp tokenises 0.1 to 4 million in a second.
MAX_TEXT_LENGTH: Final = 1 << 20


class SupportsTokenize(Protocol):
    """The part of ``llama.Model`` that is needed here. All of it may be called on any thread."""

    vocab_size: int

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Token ids of ``text``."""

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""


class TokenizeWorker:
    """Answers the Tokenize requests of one engine. Its methods run on the engine's thread.

    Args:
        name: of the model, for messages.
        model: whose vocabulary it is.
        publish: takes the events; called on any thread.
        readers: threads on which texts are tokenised.
        record: where the engine notes whose prompts are being read.
        send: hands a message to the engine; called on any thread.
        prompts: reads chats as the model is shown them; None where it takes none.
        long_prompts: reads them also where they are longer than the model's context.
    """

    def __init__(
        self,
        name: str,
        model: SupportsTokenize,
        publish: Publish,
        readers: ReadingPool,
        record: EngineRecord,
        send: Callable[[PromptRead], None],
        prompts: PromptReader | None = None,
        long_prompts: PromptReader | None = None,
    ) -> None:
        self._name, self._model, self._publish = name, model, publish
        self._readers, self._record, self._send = readers, record, send
        self._prompts, self._long_prompts = prompts, long_prompts
        # Whoever takes a request out of it says how it ended.
        self._pending: dict[SequenceId, Future[Any]] = {}
        self._lock = threading.Lock()

    def submit(self, request: Tokenize) -> None:
        """Begin to answer a request."""
        prompts, sequence = self._prompts, request.sequence
        with self._lock:
            if prompts is not None and media_of(request.prompt):
                # What looks at images and listens to sound belongs to the engine's thread: see ``finish``.
                self._pending[sequence] = self._readers.submit(
                    sequence,
                    lambda: prompts.prepare(request.prompt).salted(request.cache_salt),
                    lambda done: self._send(PromptRead(sequence, done)),
                )
            else:
                self._pending[sequence] = self._readers.submit(
                    sequence, lambda: self._answer(sequence, lambda: self._tokens(request))
                )

    def finish(self, message: PromptRead) -> None:
        """Answer a request whose texts are read, and whose images or sound are yet to be looked at; ignore others."""
        prompts = self._prompts
        with self._lock:
            is_mine = self._pending.get(message.sequence) is message.outcome
        if is_mine and prompts is not None:
            with self._record.reading(message.sequence):
                self._answer(message.sequence, lambda: prompts.finish(outcome_of(message.outcome, self._name)).tokens)

    def cancel(self, sequence: SequenceId) -> None:
        """Forget a request."""
        if self._part_with(sequence):
            self._publish([Cancelled(sequence)])

    def shutdown(self, stop: Stop) -> None:
        """Part with all requests: where they are suspended, they leave as they came."""
        self._end_all(Returned if stop.suspend else Cancelled)

    def _end_all(self, end: Callable[[SequenceId], Event]) -> None:
        if ended := [end(sequence) for sequence in tuple(self._pending) if self._part_with(sequence)]:
            self._publish(ended)

    def _part_with(self, sequence: SequenceId) -> bool:
        """Whether a request was waiting or being answered; it is not any more."""
        with self._lock:
            future = self._pending.pop(sequence, None)
        if future is not None:
            future.cancel()
        return future is not None

    def _answer(self, sequence: SequenceId, read: Callable[[], Sequence[int]]) -> None:
        event: Event
        try:
            tokens = read()
            event = Tokenized(sequence, tuple(tokens), tuple(self._model.pieces(tokens)))
        except ModelyardError as refused:
            event = Failed(sequence, refused)
        except Exception as failure:
            # The edge of the thread: a request without an end would be waited for until the server ends.
            logger.exception("The tokens of a text could not be told by %s", self._name)
            event = Failed(sequence, EngineError(self._name, f"{type(failure).__name__}: {failure}"))
        if self._part_with(sequence):
            self._publish([event])

    def _tokens(self, request: Tokenize) -> Sequence[int]:
        match request.prompt:
            case Chat() as chat:
                if self._long_prompts is None:
                    raise UnsupportedOperation(f"'{self._name}' does not chat. Send the text itself.", "messages")
                return self._long_prompts.read(chat).tokens
            case Text(text):
                check_length(text, MAX_TEXT_LENGTH, "content")
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
