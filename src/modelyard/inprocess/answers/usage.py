"""Counts and speeds of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelyard.inprocess.answers.base import Answer


class PromptTokensDetails(Answer):
    """``cached_tokens`` counts the tokens of the prompt that were taken from the KV cache."""

    cached_tokens: int


class CompletionTokensDetails(Answer):
    """``reasoning_tokens`` counts the tokens of the answer that are reasoning."""

    reasoning_tokens: int


class CompletionUsage(Answer):
    """Counts of tokens; the prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "prompt_tokens", self.prompt_tokens
        yield "completion_tokens", self.completion_tokens


class PooledUsage(Answer):
    """Counts of tokens of inputs that have no answer in text."""

    prompt_tokens: int
    total_tokens: int


class PromptProgress(Answer):
    """llama.cpp's ``prompt_progress``: how much of a prompt is computed, from ``cache`` to ``total`` tokens."""

    total: int
    cache: int
    processed: int
    time_ms: int


class PromptToken(Answer):
    """A token that is possible at a place of the prompt. vLLM's ``Logprob``."""

    logprob: float
    rank: int
    decoded_token: str


class Timings(Answer):
    """llama.cpp's counts and speeds of an answer: ``predicted_per_second`` is the speed of generation.

    Attributes:
        cache_n: tokens of the prompt that came from the KV cache.
        prompt_n, prompt_ms, prompt_per_token_ms, prompt_per_second: the tokens of the prompt that were computed.
        predicted_n, predicted_ms, predicted_per_token_ms, predicted_per_second: the tokens of the answer.
    """

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
