"""POST /v1/completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.openai.chunks import Chunks, EventEncoder, Identity, TextChunkChoice
from modelyard.api.openai.prompt_logprobs import best_of, mean_logprob, prompt_scores, token_name
from modelyard.api.openai.schema import CompletionRequest, choices_of
from modelyard.api.openai.timings import take_progress, timings_object
from modelyard.api.openai.usage import total_usage, usage_object
from modelyard.api.openapi.answers_openai import FinishReason, ListedLogprobs, TextChoice, TextCompletion
from modelyard.api.services import Services
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.streaming import ChoiceEncoder, ChoiceRequest, respond
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.protocol.events import Finished
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.requests import Request, WaitOptions
from modelyard.yard.requests.token_stream import TokenStream


class CompletionEncoder(EventEncoder, ChoiceEncoder):
    """Encodes one choice of a text completion.

    Args:
        body: the request.
        identity: the id and the time of the completion.
        means: takes the mean log-probability of each answer, where only the best ones are returned.
        index: the number of the choice, from 0.
    """

    def __init__(self, body: CompletionRequest, identity: Identity, means: list[float], index: int = 0) -> None:
        self._body, self._identity, self._means, self._index = body, identity, means, index
        self._has_logprobs = body.logprobs is not None
        self._is_bare = not self._has_logprobs and not body.timings_per_token and not body.return_progress
        # Offset of the next token in the choice's text, in characters.
        self._offset = 0

    def open(self, generation: TokenStream) -> bytes:
        """Return nothing: a text completion begins with its text."""
        self._generation = generation
        self._common = self._identity.of(generation)
        self._chunks = Chunks(
            "text_completion", self._common, include_usage=self._body.wants_usage, choices=self._body.choices
        )
        self._before_text = self._chunks.head + b'[{"index":%d,"text":' % self._index
        self._after_text = b',"logprobs":null,"finish_reason":null}]' + self._chunks.tail
        return b""

    def text(self, text: str) -> bytes:
        """Return a chunk of text."""
        if not self._is_bare:
            progress = take_progress(self._generation)
            reported = b"" if progress is None else self._chunks.of_progress(self._choice_of("", None), progress)
            return reported + (self._chunk(text, None) if text else b"")
        return self._before_text + orjson.dumps(text) + self._after_text

    def close(self, finished: Finished) -> bytes:
        """Return the chunk with the finish_reason."""
        return self._chunk("", finished.reason)

    def end(self, finished: Sequence[Finished]) -> bytes:
        """Return the usage, if the client asked for it, and the end marker."""
        return self._chunks.end(finished, timings_object(self._generation))

    def choice(self, text: str, finished: Finished) -> TextChoice:
        """Return the choice of a whole completion."""
        if self._body.generated > self._body.choices:
            self._means.append(mean_logprob(self._generation.logprobs))
        return {
            "index": self._index,
            "text": text,
            "logprobs": self._logprobs(),
            "finish_reason": finished.reason,
            **prompt_scores(self._body, self._generation),
        }

    def whole(self, choices: Sequence[TextChoice], finished: Sequence[Finished]) -> TextCompletion:
        """Return the whole completion."""
        generated = self._body.generated
        returned = list(choices)
        if generated > self._body.choices:
            best = best_of(self._means, len(choices) // generated, self._body.choices)
            returned = [{**choices[answer], "index": index} for index, answer in enumerate(best)]
        return {
            "object": "text_completion",
            **self._common,
            "choices": returned,
            "usage": usage_object(total_usage(finished, generated)),
            "timings": timings_object(self._generation),
        }

    def part(self, text: str, finish_reason: FinishReason | None) -> TextChunkChoice:
        """Return a piece of the choice, with the log-probabilities of its tokens."""
        choice = self._choice_of(text, finish_reason)
        choice["logprobs"] = self._logprobs()
        return choice

    def _chunk(self, text: str, finish_reason: FinishReason | None) -> bytes:
        choice = self.part(text, finish_reason)
        has_timings = finish_reason is not None or self._body.timings_per_token
        return self._chunks.of(choice, timings_object(self._generation) if has_timings else None)

    def _choice_of(self, text: str, finish_reason: FinishReason | None) -> TextChunkChoice:
        return {"index": self._index, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def _logprobs(self) -> ListedLogprobs | None:
        """Take the generation's new logprobs, in the parallel lists of OpenAI's older API; None: not asked for."""
        if not self._has_logprobs:
            return None
        logprobs, self._generation.logprobs = self._generation.logprobs, []
        as_id = bool(self._body.return_tokens_as_token_ids)
        texts = [each.token.decode("utf-8", "replace") for each in logprobs]
        offsets = []
        for text in texts:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": [token_name(each.token, each.id, as_id=as_id) for each in logprobs],
            "token_logprobs": [None if _is_first(each) else each.logprob for each in logprobs],
            "top_logprobs": [None if _is_first(each) else _named_top(each, as_id=as_id) for each in logprobs],
            "text_offset": offsets,
        }


def _is_first(entry: TokenLogprob) -> bool:
    """Whether it is the first token of an echoed prompt, which has no probability."""
    return math.isnan(entry.logprob)


def _named_top(each: TokenLogprob, *, as_id: bool) -> dict[str, float]:
    ids = each.top_ids or (-1,) * len(each.top)
    return {
        token_name(token, token_id, as_id=as_id): logprob
        for token_id, (token, logprob) in zip(ids, each.top, strict=True)
    }


def text_requests(body: CompletionRequest, options: WaitOptions) -> list[Request]:
    """Return ``body`` as requests to the yard, one for each choice of each prompt.

    Raises:
        InvalidRequest: the value of a field is not supported.
    """
    return [
        choice
        for request in body.checked()
        for choice in choices_of(replace(request, wait_options=options), body.generated)
    ]


def text_choices(body: CompletionRequest, requests: Sequence[Request]) -> list[ChoiceRequest]:
    """Return the ``requests`` of ``body``, each with the encoder of its choice."""
    identity, means = Identity("cmpl"), list[float]()
    return [
        ChoiceRequest(request, CompletionEncoder(body, identity, means, index))
        for index, request in enumerate(requests)
    ]


router = APIRouter(route_class=JsonRoute)


@router.post("/v1/completions", response_model=None)
async def create_completion(body: CompletionRequest, http: HttpRequest) -> Response:
    """Continue texts, whole or as a stream."""
    requests = text_requests(body, wait_options_of(http, body.keep_alive))
    return respond(Services.of(http).yard, text_choices(body, requests), stream=bool(body.stream))
