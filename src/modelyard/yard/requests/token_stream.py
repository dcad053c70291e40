"""One request's answer as it arrives: events are put in on the event loop, text comes out.

Hot path: ``add``, ``wake`` and ``take_text`` run once a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from modelyard.errors import ModelyardError, ShuttingDown
from modelyard.protocol.delta_text import MARKED
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Failed,
    Finished,
    PromptProgress,
    PromptScored,
    SequenceEvent,
    Token,
)
from modelyard.protocol.values import OutputFormat, TokenLogprob
from modelyard.yard.requests.account import MeteredRequest
from modelyard.yard.requests.context import current_caller
from modelyard.yard.requests.model_names import ModelId
from modelyard.yard.requests.timings import RequestTimings
from modelyard.yard.requests.transcript import Transcript


class TokenStream(MeteredRequest):
    """An answer that is being generated. It has one reader, which iterates it for its text, once.

    All text that arrived since the last read comes as one piece, so a slow reader costs no more than a fast one.

    Attributes:
        model: id of the model that answers.
        fingerprint: of the model and the backend, as OpenAI's ``system_fingerprint``.
        prompt_tokens: tokens of the prompt, once it is accepted.
        cached_tokens: tokens of the prompt that were not computed again, once its prefill has begun.
        output_format: how the text is parsed, once the prompt is accepted; None: it is plain text.
        prompt_logprobs: of the tokens of the prompt, where they were asked for and it is computed.
        computed: number of tokens of the prompt that are computed; None: no news of it. The reader sets it to None.
        logprobs: of the tokens whose text has arrived, where they were asked for. The reader removes them.
        generated: number of tokens of the answer that have arrived.
        keeps_ids: whether the ids of these tokens are kept in ``ids``.
        ids: the token ids that have arrived. The reader removes them.
        finished: reason and usage, once the last event has arrived.
        times: the times of its stages.
        transcript: keeps its prompt and answer; None: they are not recorded.
    """

    def __init__(self, model: ModelId) -> None:
        self.model = model
        self.fingerprint = ""
        self.prompt_tokens = self.cached_tokens = 0
        self.finished: Finished | None = None
        self.output_format: OutputFormat | None = None
        self.prompt_logprobs: tuple[TokenLogprob, ...] = ()
        self.computed: int | None = None
        self.logprobs: list[TokenLogprob] = []
        self.generated = 0
        self.keeps_ids = False
        self.ids: list[int] = []
        self.times = RequestTimings()
        self.transcript: Transcript | None = None
        self._text: list[str] = []
        self._error: ModelyardError | None = None
        self._accepted = False
        self._waiting: asyncio.Future[None] | None = None
        self._on_news: Callable[[], bool] = bool

    # Events in: only from the event loop's thread

    def put(self, event: SequenceEvent) -> None:
        """Take the next event, and wake the reader."""
        match event:
            case Token():
                self.add(event)
            case Accepted(_, prompt_tokens, output_format, tokens, dropped, repairs):
                self._accepted, self.prompt_tokens, self.output_format = True, prompt_tokens, output_format
                self.dropped, self.repairs = dropped, repairs
                if self.transcript is not None:
                    self.transcript.read(tokens)
                    self.transcript.is_marked = output_format == MARKED
                if self.account is not None:
                    self.account.record_prompt(prompt_tokens)
            case PromptProgress(_, computed):
                self.computed = computed
            case PromptScored(_, logprobs):
                self.prompt_logprobs = logprobs
            case Finished(_, _, usage):
                self.finished = event
                # Those of a model that another server has are known at its end.
                self.prompt_tokens = self.prompt_tokens or usage.prompt_tokens
                self.cached_tokens = self.cached_tokens or usage.cached_tokens
                self.record_usage(usage)
            case Failed(_, error, usage):
                self._error, self.error_code = error, error.code
                self.record_usage(usage)
            case Cancelled(_, usage):
                self._error, self.error_code = ShuttingDown(), ShuttingDown.code
                self.record_usage(usage)
        self.wake()

    def add(self, token: Token) -> None:
        """Take the text of a token; the caller calls ``wake`` once all tokens of the step are added."""
        if token.text:
            self._text.append(token.text)
            if self.transcript is not None:
                self.transcript.add(token.text)
        self.generated += len(token.ids)
        if self.keeps_ids:
            self.ids.extend(token.ids)
        if token.logprobs:
            self.logprobs.extend(token.logprobs)

    def wake(self) -> None:
        """Call what the reader waits with, and wake the reader if that returns true."""
        if self._waiting is not None and not self._waiting.done() and self._on_news():
            self._waiting.set_result(None)

    # Text out

    async def drive(self, on_news: Callable[[], bool]) -> None:
        """Have ``on_news`` handle what arrives: it is called now and by every ``wake``, until it returns true.

        It must not raise. The task of the reader wakes only when it has returned true.
        """
        if not on_news():
            self._waiting, self._on_news = asyncio.get_running_loop().create_future(), on_news
            await self._waiting

    async def until(self, is_reached: Callable[[], bool]) -> None:
        """Wait until ``is_reached``, which changes nothing, returns true."""
        await self.drive(is_reached)

    @property
    def is_over(self) -> bool:
        """Whether its last event has arrived."""
        return self.finished is not None or self._error is not None

    @property
    def is_settled(self) -> bool:
        """Whether the prompt was accepted or refused."""
        return self._accepted or self._error is not None

    async def accepted(self) -> None:
        """Wait until the model is loaded and the prompt has passed all checks.

        Raises:
            ModelyardError: the request was refused.
        """
        await self.until(lambda: self.is_settled)
        if not self._accepted:
            self.outcome()

    def take_text(self) -> str:
        """Return the text that arrived since the last call."""
        text = "".join(self._text)
        self._text.clear()
        return text

    def outcome(self) -> Finished:
        """Return how it ended. It must be over.

        Raises:
            ModelyardError: it ended with an error.
        """
        if self._error is not None:
            raise current_caller().visible_error(self._error)
        assert self.finished is not None
        return self.finished

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> str:
        await self.until(lambda: bool(self._text) or self.is_over)
        if not self._text:
            self.outcome()
            raise StopAsyncIteration
        return self.take_text()

    async def text(self) -> str:
        """Wait for the end, and return the whole answer.

        Raises:
            ModelyardError: the request was refused, or failed.
        """
        await self.until(lambda: self.is_over)
        self.outcome()
        return self.take_text()
