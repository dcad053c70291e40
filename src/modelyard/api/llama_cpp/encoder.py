"""Encodes the answers of /completion and /infill: a JSON object, or server-sent events.

Source: llama.cpp, tools/server, server-task.cpp, server_task_result_cmpl_partial and server_task_result_cmpl_final.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from modelyard.api.errors.rendering import error_body
from modelyard.api.llama_cpp.schema import NativeFields
from modelyard.api.llama_cpp.settings import generation_settings
from modelyard.api.openai.timings import take_progress, timings_object
from modelyard.api.openapi.answers_llama_cpp import (
    NativeCompletion,
    SampledToken,
    StopType,
    TokenIdentity,
    TokenProbability,
)
from modelyard.api.serving.streaming import EVENT_STREAM, ChoiceEncoder
from modelyard.errors import ModelyardError
from modelyard.protocol.events import Finished
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Sampling
from modelyard.protocol.values import TokenLogprob
from modelyard.yard.requests.requests import Request
from modelyard.yard.requests.token_stream import TokenStream

# llama.cpp's number for no particular slot: sequences are not bound to slots here.
NO_SLOT = -1


class NativeEncoder(ChoiceEncoder):
    """Encodes one answer.

    Args:
        body: the request.
        request: what the yard was sent for it.
        prompt: the prompt as the answer repeats it.
        profile_of: returns the profile of a model, by id; None where it is not loaded.
        index: the number of the answer, from 0.
    """

    headers = EVENT_STREAM

    def __init__(
        self,
        body: NativeFields,
        request: Request,
        prompt: Any,
        profile_of: Callable[[str], ModelProfile | None],
        index: int = 0,
    ) -> None:
        self._body, self._request, self._prompt, self._index = body, request, prompt, index
        self._profile_of = profile_of
        self._has_new_line = False
        self._is_mute = body.only_computes_prompt

    def open(self, generation: TokenStream) -> bytes:
        """Return nothing: an answer begins with its text."""
        self._generation = generation
        profile = self._profile_of(generation.model)
        self._sampling = Sampling() if profile is None else profile.sampling
        self._context_length = 0 if profile is None else profile.context_length or 0
        return b""

    def text(self, text: str) -> bytes:
        """Return the event of a piece of text."""
        reported = self._progress()
        if self._is_mute or not text:
            return reported
        self._has_new_line = self._has_new_line or "\n" in text
        generation = self._generation
        fields: dict[str, Any] = {
            "index": self._index,
            "content": text,
            "tokens": self._take_ids(),
            "stop": False,
            "id_slot": NO_SLOT,
            "tokens_predicted": generation.generated,
            "tokens_evaluated": generation.prompt_tokens,
        }
        if self._request.logprobs is not None:
            fields["completion_probabilities"] = self._take_probabilities()
        if self._body.timings_per_token:
            fields["timings"] = timings_object(generation)
        return reported + _event(fields)

    def _progress(self) -> bytes:
        """Return an event that reports how much of the prompt is computed, if there is news of it."""
        progress = take_progress(self._generation)
        if progress is None:
            return b""
        return _event(
            {
                "index": self._index,
                "content": "",
                "tokens": [],
                "stop": False,
                "id_slot": NO_SLOT,
                "tokens_predicted": 0,
                "tokens_evaluated": self._generation.prompt_tokens,
                "prompt_progress": progress,
            }
        )

    def close(self, finished: Finished) -> bytes:
        """Return the last event of the answer."""
        return _event(self._selected(self._final("", finished, is_stream=True)))

    def end(self, _finished: Sequence[Finished]) -> bytes:
        """Return nothing: each answer has a last event of its own."""
        return b""

    def comment(self, text: str) -> bytes:
        """Return a comment of server-sent events."""
        return b": " + text.encode() + b"\n\n"

    def error(self, error: ModelyardError) -> bytes:
        """Return an error in place of an event."""
        return b"data: " + error_body(error) + b"\n\n"

    def choice(self, text: str, finished: Finished) -> dict[str, Any]:
        """Return the whole answer."""
        self._has_new_line = "\n" in text
        return self._selected(self._final("" if self._is_mute else text, finished, is_stream=False))

    def whole(self, choices: Sequence[dict[str, Any]], _finished: Sequence[Finished]) -> Any:
        """Return the answer, or all of them if there are several."""
        return choices[0] if len(choices) == 1 else list(choices)

    def _final(self, text: str, finished: Finished, *, is_stream: bool) -> NativeCompletion:
        body, usage = self._body, finished.usage
        limit = body.max_tokens if body.n_predict is None else body.n_predict
        is_full = usage.prompt_tokens + usage.completion_tokens >= self._context_length > 0
        stop_type: StopType = "limit" if finished.reason == "length" else "eos" if finished.stop is None else "word"
        tokens = self._take_ids() if body.return_tokens and not is_stream else []
        final: NativeCompletion = {
            "index": self._index,
            "content": text,
            "tokens": tokens,
            "id_slot": NO_SLOT,
            "stop": True,
            "model": self._generation.model,
            "tokens_predicted": 0 if self._is_mute else usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "generation_settings": generation_settings(
                self._request, self._sampling, n_predict=-1 if limit is None else max(-1, limit), is_stream=is_stream
            ),
            "prompt": self._prompt,
            "has_new_line": self._has_new_line,
            "truncated": finished.reason == "length" and is_full,
            "stop_type": stop_type,
            "stopping_word": finished.stop or "",
            "tokens_cached": usage.cached_tokens,
            "timings": timings_object(self._generation),
        }
        if self._request.logprobs is not None:
            final["completion_probabilities"] = self._take_probabilities()
        return final

    def _selected(self, final: NativeCompletion) -> dict[str, Any]:
        names = self._body.response_fields
        return selected_fields(dict(final), names) if names else dict(final)

    def _take_ids(self) -> list[int]:
        generation = self._generation
        ids, generation.ids = generation.ids, []
        return [] if self._is_mute else ids

    def _take_probabilities(self) -> list[TokenProbability | SampledToken]:
        generation = self._generation
        logprobs, generation.logprobs = generation.logprobs, []
        of_token = sampled_object if self._request.sampled_logprobs else probability_object
        return [of_token(each) for each in logprobs]


def probability_object(each: TokenLogprob) -> TokenProbability:
    """Return a token with its log-probability and the likeliest tokens at its position."""
    return {
        **_token_object(each.id, each.token),
        "logprob": each.logprob,
        "top_logprobs": [{**_token_object(token, piece), "logprob": logprob} for token, piece, logprob in _top(each)],
    }


def sampled_object(each: TokenLogprob) -> SampledToken:
    """Return a token with the probability that it was drawn with, and the likeliest tokens that could be drawn."""
    top = [(token, piece, math.exp(logprob)) for token, piece, logprob in _top(each)]
    return {
        **_token_object(each.id, each.token),
        "prob": math.exp(each.logprob),
        "top_probs": [
            {**_token_object(token, piece), "prob": probability} for token, piece, probability in top if probability
        ],
    }


def _top(each: TokenLogprob) -> list[tuple[int, bytes, float]]:
    ids = each.top_ids or (-1,) * len(each.top)
    return [(token, piece, logprob) for token, (piece, logprob) in zip(ids, each.top, strict=True)]


def _token_object(token: int, piece: bytes) -> TokenIdentity:
    return {"id": token, "token": piece.decode("utf-8", "replace"), "bytes": list(piece)}


def selected_fields(answer: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the named fields of an answer that exist; ``a/b`` is the field ``b`` of ``a``, under that whole name."""
    selected: dict[str, Any] = {}
    for name in names:
        value: Any = answer
        for key in name.split("/"):
            if not isinstance(value, dict) or key not in value:
                break
            value = value[key]
        else:
            selected[name] = value
    return selected


def _event(fields: Any) -> bytes:
    return b"data: " + orjson.dumps(fields) + b"\n\n"
