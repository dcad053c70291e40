"""Continued texts, whole and as they arrive.

Source: OpenAI, API reference, "The completion object".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from modelyard.inprocess.answers.base import Answer, in_repr
from modelyard.inprocess.answers.chat import FinishReason
from modelyard.inprocess.answers.notebook import plain_html
from modelyard.inprocess.answers.usage import CompletionUsage, PromptProgress, PromptToken, Timings


class CompletionLogprobs(Answer):
    """Log-probabilities of the tokens of a text, as parallel lists.

    Attributes:
        text_offset: where each token begins in the text of its choice, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answer):
    """One continuation, or a piece of it. Of a stream, only the last piece has a finish_reason."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    prompt_logprobs: list[dict[str, PromptToken] | None] | None = None
    finish_reason: FinishReason | None = None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        if self.index:
            yield "index", self.index
        yield None, in_repr(self.text)
        if self.finish_reason is not None:
            yield "finish_reason", self.finish_reason


class Completion(Answer):
    """Continued texts: ``completion.choices[0].text`` is the first one. A stream yields them in pieces.

    Attributes:
        created: seconds since 1970.
        model: id of the model that answered.
        system_fingerprint: identifies the weights and settings of the model.
        choices: every continuation; a piece of a stream has one.
        usage: tokens of all choices; of a stream, in the last piece.
        timings: counts and speeds, as llama.cpp has them.
        prompt_progress: in pieces before the text, if the request has ``return_progress``.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
    timings: Timings | None = None
    prompt_progress: PromptProgress | None = None
    object: Literal["text_completion"] = "text_completion"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        if len(self.choices) == 1:
            yield from self.choices[0].__repr_args__()
        else:
            yield "choices", self.choices
        yield "model", self.model
        if self.usage is not None:
            yield "usage", self.usage

    def _repr_html_(self) -> str:
        return "".join(plain_html(choice.text, f"{self.model} · {choice.finish_reason}") for choice in self.choices)
