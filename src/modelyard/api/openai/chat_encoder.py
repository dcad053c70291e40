"""The chunks and the message of a chat completion that the model answers in one round."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from modelyard.api.openai.chunks import ChatChunkChoice, Chunks, EventEncoder, Identity
from modelyard.api.openai.message import MessageDelta, delta_object, logprobs_object, message_object
from modelyard.api.openai.prompt_logprobs import prompt_scores
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.openai.timings import take_progress, timings_object
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.api.openapi.answers_openai import ChatChoice, ChatCompletion, FinishReason, Logprobs
from modelyard.api.serving.streaming import ChoiceEncoder
from modelyard.protocol.deltas import Delta
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.token_stream import TokenStream


class ChatEncoder(EventEncoder, ChoiceEncoder):
    """Encodes one choice of a chat completion.

    Args:
        body: the request.
        chat: the conversation that is answered.
        identity: the id and the time of the completion.
        index: the number of the choice, from 0.
    """

    def __init__(self, body: ChatCompletionRequest, chat: Chat, identity: Identity, index: int = 0) -> None:
        self._body, self._chat, self._identity, self._index = body, chat, identity, index
        self._has_logprobs = bool(body.logprobs)

    def open(self, generation: TokenStream) -> bytes:
        """Return the chunk with the role."""
        self._generation = self._first = generation
        self._reader = OutputReader(generation, self._chat)
        body = self._body
        has_extras = self._has_logprobs or body.timings_per_token or body.return_progress
        self._is_bare = self._reader.is_plain and not has_extras
        self._common = self._identity.of(generation)
        self._chunks = Chunks(
            "chat.completion.chunk", self._common, include_usage=self._body.wants_usage, choices=self._body.choices
        )
        self._before_text = self._chunks.head + b'[{"index":%d,"delta":{"content":' % self._index
        self._after_text = b'},"logprobs":null,"finish_reason":null}]' + self._chunks.tail
        return self._chunks.of(self._choice({"role": "assistant", "content": ""}))

    def text(self, text: str) -> bytes:
        """Return the chunks of the content, the reasoning and the calls in ``text``."""
        if self._is_bare:
            return self._before_text + orjson.dumps(text) + self._after_text
        return self._progress() + (self._encode(self._reader.push(text)) if text else b"")

    def close(self, finished: Finished) -> bytes:
        """Return the chunks of the text that was held back, and the chunk with the finish_reason."""
        rest = self._encode(self._reader.finish(finished))
        last = self._choice({}, self._finish_reason(finished))
        return rest + self._chunks.of(last, timings_object(self._generation))

    def end(self, finished: Sequence[Finished]) -> bytes:
        """Return the usage, if the client asked for it, and the end marker."""
        return self._chunks.end(finished, timings_object(self._generation))

    def choice(self, text: str, finished: Finished) -> ChatChoice:
        """Return the choice of a whole completion."""
        message = self._reader.whole(text, finished)
        return {
            "index": self._index,
            "message": message_object(message),
            "logprobs": self._logprobs(self._generation.logprobs) if self._has_logprobs else None,
            "finish_reason": self._finish_reason(finished),
        }

    def whole(self, choices: Sequence[ChatChoice], finished: Sequence[Finished]) -> ChatCompletion:
        """Return the whole completion."""
        return {
            "object": "chat.completion",
            **self._common,
            "choices": list(choices),
            "usage": usage_object(total_usage(finished, self._body.choices)),
            "timings": timings_object(self._generation),
            **prompt_scores(self._body, self._first),
        }

    def _finish_reason(self, finished: Finished) -> FinishReason:
        return "tool_calls" if self._reader.ends_with_calls(finished) else finished.reason

    def _encode(self, deltas: list[Delta]) -> bytes:
        choices = [self._choice(delta) for delta in map(delta_object, deltas) if delta is not None]
        if self._has_logprobs and self._generation.logprobs:
            logprobs, self._generation.logprobs = self._generation.logprobs, []
            choices = choices or [self._choice({})]
            choices[0]["logprobs"] = self._logprobs(logprobs)
        timings = timings_object(self._generation) if choices and self._body.timings_per_token else None
        return b"".join(self._chunks.of(choice, timings) for choice in choices)

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Logprobs:
        return logprobs_object(logprobs, as_ids=bool(self._body.return_tokens_as_token_ids))

    def _progress(self) -> bytes:
        """Return a chunk that reports how much of the prompt is computed, if there is news of it."""
        progress = take_progress(self._generation)
        return b"" if progress is None else self._chunks.of_progress(self._choice({}), progress)

    def _choice(self, delta: MessageDelta, finish_reason: FinishReason | None = None) -> ChatChunkChoice:
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
