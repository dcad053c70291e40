"""Requests to models, and the messages that their engines are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.protocol.prompts import Chat, Prompt, Sampling, Text, Tokens
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.values import SequenceId


@dataclass(frozen=True, slots=True)
class WaitOptions:
    """How a request waits for its model; see ``events.RequestArrived``."""

    priority: int | None = None
    wait_s: float | None = None
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request for generated text.

    Attributes:
        model: id or alias; None means the default.
        max_tokens: bound of the answer; None: as many as the context holds.
        wait_options: how it waits for its model.
        wants_ids: whether the reader of the answer gets its token ids, too.
        lora: numbers of the model's adapters with their scales, as llama.cpp's field of that name; None: those that
            ``model`` names.
        prompt, sampling, min_tokens, stop, stop_tokens, includes_stop, shows_special, ignore_eos, response_format,
            grammar, logprobs, sampled_logprobs, echoes, prediction, reasoning_budget, prompt_logprobs,
            max_prompt_tokens, allowed_tokens, bad_words, max_predict_s, reports_progress: see
            ``protocol.requests.Submit``.
    """

    prompt: Prompt
    model: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    response_format: Mapping[str, Any] | None = None
    grammar: Mapping[str, Any] | None = None
    logprobs: int | None = None
    sampled_logprobs: bool = False
    echoes: bool = False
    prediction: str = ""
    reasoning_budget: int | None = None
    wait_options: WaitOptions = field(default_factory=WaitOptions)
    min_tokens: int = 0
    stop_tokens: tuple[int, ...] = ()
    includes_stop: bool = False
    shows_special: bool = False
    wants_ids: bool = False
    prompt_logprobs: int | None = None
    max_prompt_tokens: int | None = None
    allowed_tokens: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    max_predict_s: float | None = None
    reports_progress: bool = False
    lora: tuple[tuple[int, float], ...] | None = None

    def message(self, sequence: SequenceId, priority: int) -> Submit:
        """Return the message for the engine. ``priority`` is the request's, which defaults to its model's."""
        return Submit(
            sequence=sequence,
            prompt=self.prompt,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.stop,
            ignore_eos=self.ignore_eos,
            priority=priority,
            response_format=self.response_format,
            grammar=self.grammar,
            logprobs=self.logprobs,
            sampled_logprobs=self.sampled_logprobs,
            echoes=self.echoes,
            prediction=self.prediction,
            reasoning_budget=self.reasoning_budget,
            min_tokens=self.min_tokens,
            stop_tokens=self.stop_tokens,
            includes_stop=self.includes_stop,
            shows_special=self.shows_special,
            prompt_logprobs=self.prompt_logprobs,
            max_prompt_tokens=self.max_prompt_tokens,
            allowed_tokens=self.allowed_tokens,
            bad_words=self.bad_words,
            max_predict_s=self.max_predict_s,
            reports_progress=self.reports_progress,
        )


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A request for the vectors of texts.

    Attributes:
        inputs: the texts, or their token ids; one vector is computed for each.
        model: id or alias; None means the default.
        wait_options: how it waits for its model.
        truncates: whether a text that is too long is truncated instead of refused.
    """

    inputs: tuple[Text | Tokens, ...]
    model: str | None = None
    wait_options: WaitOptions = field(default_factory=WaitOptions)
    truncates: bool = False

    def message(self, sequence: SequenceId, priority: int) -> Embed:
        """Return the message for the engine."""
        return Embed(sequence, self.inputs, priority, self.truncates)


@dataclass(frozen=True, slots=True)
class RankRequest:
    """A request to score documents by how well they answer a query.

    Attributes:
        query, documents, max_document_tokens: see ``protocol.requests.Rank``.
        model: id or alias; None means the default.
        wait_options: how it waits for its model.
    """

    query: str
    documents: tuple[str, ...]
    model: str | None = None
    max_document_tokens: int | None = None
    wait_options: WaitOptions = field(default_factory=WaitOptions)

    def message(self, sequence: SequenceId, priority: int) -> Rank:
        """Return the message for the engine."""
        return Rank(sequence, self.query, self.documents, self.max_document_tokens, priority)


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A request for the tokens of a text or a conversation.

    Attributes:
        prompt, add_special, parse_special: see ``protocol.requests.Tokenize``.
        model: id or alias; None means the default.
        wait_options: how it waits for its model.
    """

    prompt: Chat | Text | Tokens
    model: str | None = None
    add_special: bool = True
    parse_special: bool = True
    wait_options: WaitOptions = field(default_factory=WaitOptions)

    def message(self, sequence: SequenceId) -> Tokenize:
        """Return the message for the engine."""
        return Tokenize(sequence, self.prompt, self.add_special, self.parse_special)
