"""What is asked of models, and what their engines are sent for it."""

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
    """What is asked of a model.

    Attributes:
        model: id or alias; None means the default.
        max_tokens: None: as many as the context holds.
        response_format, grammar, logprobs, echoes, prediction: see ``engine.messages.Submit``.
        urgency: how it waits for its model.
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
    echoes: bool = False
    prediction: str = ""
    urgency: WaitOptions = field(default_factory=WaitOptions)

    def message(self, sequence: SequenceId, priority: int) -> Submit:
        """What the model's engine is sent, where priority is that of the request, else that of its model."""
        return Submit(
            sequence,
            self.prompt,
            self.sampling,
            self.max_tokens,
            self.stop,
            self.ignore_eos,
            priority,
            self.response_format,
            self.grammar,
            self.logprobs,
            self.echoes,
            self.prediction,
        )


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts that are to become vectors.

    Attributes:
        inputs: one vector is computed of each; token ids are taken as they are.
        model: id or alias; None means the default.
        urgency: how it waits for its model.
        truncates: whether a text that is too long is cut, and not refused.
    """

    inputs: tuple[Text | Tokens, ...]
    model: str | None = None
    urgency: WaitOptions = field(default_factory=WaitOptions)
    truncates: bool = False

    def message(self, sequence: SequenceId, priority: int) -> Embed:
        """As that of a Request."""
        return Embed(sequence, self.inputs, priority, self.truncates)


@dataclass(frozen=True, slots=True)
class RankRequest:
    """Documents that are to be scored by how well they answer a query.

    Attributes:
        query, documents, most_tokens: see ``engine.messages.Rank``.
        model: id or alias; None means the default.
        urgency: how it waits for its model.
    """

    query: str
    documents: tuple[str, ...]
    model: str | None = None
    most_tokens: int | None = None
    urgency: WaitOptions = field(default_factory=WaitOptions)

    def message(self, sequence: SequenceId, priority: int) -> Rank:
        """As that of a Request."""
        return Rank(sequence, self.query, self.documents, self.most_tokens, priority)


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A text, or a conversation, of which the tokens are asked.

    Attributes:
        prompt, add_special, parse_special: see ``engine.messages.Tokenize``.
        model: id or alias; None means the default.
        urgency: how it waits for its model.
    """

    prompt: Chat | Text | Tokens
    model: str | None = None
    add_special: bool = True
    parse_special: bool = True
    urgency: WaitOptions = field(default_factory=WaitOptions)

    def message(self, sequence: SequenceId) -> Tokenize:
        """As that of a Request."""
        return Tokenize(sequence, self.prompt, self.add_special, self.parse_special)
