"""Requests to an engine, and the messages that control it. All are immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import ModelyardError
from modelyard.protocol.adapters import AdapterFile, AdapterUse
from modelyard.protocol.forwarding import HERE, Forwarding
from modelyard.protocol.prompts import Chat, Prompt, Sampling, Text, Tokens
from modelyard.protocol.values import SequenceId


@dataclass(frozen=True, slots=True)
class Submit:
    """Start a sequence.

    Attributes:
        max_tokens: limit of the answer; None: as many as the context holds; 0: only the prompt is computed.
        min_tokens: the answer does not end before it has so many tokens.
        stop: strings that end the answer; they belong to it only if ``includes_stop`` is set.
        stop_tokens: token ids that end the answer, beside those of the model.
        shows_special: whether special tokens of the answer are part of its text.
        priority: higher priorities leave the queue first.
        response_format, grammar: constraints on the answer after the model's reasoning; OpenAI's field and that of
            mistral.rs, as ``engine.chat.grammar.grammar_of`` reads them.
        logprobs: how many of the likeliest tokens are reported beside each token of the answer; None: no logprobs.
        sampled_logprobs: whether logprobs are those that tokens are drawn with, after all samplers, instead of the
            model's own.
        echoes: whether the answer begins with the prompt; with ``logprobs``, those of the prompt are computed, too.
        prediction: the expected text of the answer; matching tokens are decoded faster.
        alone: whether to compute it in steps of its own until its first token, because it was active when an engine
            died.
        cache_salt: KV state is reused between requests of the same salt only; see ``AccessKey.cache_salt``.
        max_context: limit of prompt and answer together, in tokens; None: as many as the context holds.
        max_answer: upper bound of max_tokens, which holds also where that is None; None: no bound.
        reasoning_budget: how many tokens of the answer may be reasoning; None: as the options of the chat say.
        prompt_logprobs: for how many of the likeliest tokens the log-probabilities at each place of the prompt are
            reported, in a ``PromptScored``; None: it is not scored.
        max_prompt_tokens: a longer prompt is cut to so many tokens, at its beginning; 0: to what leaves room for an
            answer; None: it is not cut.
        allowed_tokens: the only token ids that the answer may have; None: all.
        bad_words: texts whose tokens the answer must not have one behind the other.
        max_predict_s: how long an answer that has more than one line may take, from its first token; None: no limit.
        reports_progress: whether a ``PromptProgress`` is published for each part of the prompt that is computed.
        forwarding: what goes along with it where another server has the model.
        adapters: what the model is computed with beside its weights.
    """

    sequence: SequenceId
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    priority: int = 0
    response_format: Mapping[str, Any] | None = None
    grammar: Mapping[str, Any] | None = None
    logprobs: int | None = None
    sampled_logprobs: bool = False
    echoes: bool = False
    prediction: str = ""
    alone: bool = False
    cache_salt: str = ""
    max_context: int | None = None
    max_answer: int | None = None
    reasoning_budget: int | None = None
    min_tokens: int = 0
    stop_tokens: tuple[int, ...] = ()
    includes_stop: bool = False
    shows_special: bool = False
    prompt_logprobs: int | None = None
    max_prompt_tokens: int | None = None
    allowed_tokens: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    max_predict_s: float | None = None
    reports_progress: bool = False
    forwarding: Forwarding = HERE
    adapters: tuple[AdapterUse, ...] = ()

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the tokens of the prompt are computed."""
        return self.prompt_logprobs is not None or (self.echoes and self.logprobs is not None)


@dataclass(frozen=True, slots=True)
class Embed:
    """Embed each of ``inputs`` as a vector. The request is identified by a sequence number.

    Attributes:
        priority, alone, forwarding: as in Submit.
        truncates: whether an input that is too long is cut rather than refused.
        max_context: limit of each input, in tokens; None: as many as the context holds.
    """

    sequence: SequenceId
    inputs: tuple[Text | Tokens, ...]
    priority: int = 0
    truncates: bool = False
    alone: bool = False
    max_context: int | None = None
    forwarding: Forwarding = HERE


@dataclass(frozen=True, slots=True)
class Rank:
    """Score how well each of ``documents`` answers ``query``. The request is identified by a sequence number.

    Attributes:
        max_document_tokens: a document that is longer is cut to it; None: a document that does not fit is refused.
        priority, alone, forwarding: as in Submit.
        max_context: limit of each document with the query, in tokens; None: as many as the context holds.
    """

    sequence: SequenceId
    query: str
    documents: tuple[str, ...]
    max_document_tokens: int | None = None
    priority: int = 0
    alone: bool = False
    max_context: int | None = None
    forwarding: Forwarding = HERE


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Return the tokens of ``prompt`` without computing them. The request is identified by a sequence number.

    Attributes:
        prompt: a chat is rendered by its template; tokens are returned unchanged.
        add_special: whether the model's begin and end tokens are added to a text; a chat gets those of its template.
        parse_special: whether special tokens that are spelt out in a text become those tokens.
        alone, cache_salt: as in Submit; the salt applies to encoded images, which are cached.
    """

    sequence: SequenceId
    prompt: Chat | Text | Tokens
    add_special: bool = True
    parse_special: bool = True
    alone: bool = False
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a sequence before its next step. Unknown and ended sequences are ignored."""

    sequence: SequenceId


@dataclass(frozen=True, slots=True)
class SetShare:
    """Change the engine's share of the device; see ``EngineSettings``."""

    weight: float
    priority: int


@dataclass(frozen=True, slots=True)
class SetAdapters:
    """Hold these adapters from now on, between two steps. Sequences that use others go on with them.

    Streams wait while a new one is read. Where llama.cpp cannot load one, the adapters stay as they were.
    """

    adapters: tuple[AdapterFile, ...]


@dataclass(frozen=True, slots=True)
class Resize:
    """Give the context another size, between two steps. A ``ContextResized`` is the answer.

    Sequences go on. The size stays as it is where none of ``sizes`` has room for what they need.

    Attributes:
        sizes: KV cells that it may have, the smallest first, of at most ``EngineSettings.context_length``.
        keep_bytes: limit of the host memory that states take meanwhile, beside the larger of both contexts: kept
            prefixes beyond it are dropped, and sequences computed again.
    """

    sizes: tuple[int, ...]
    keep_bytes: int


@dataclass(frozen=True, slots=True)
class RefuseGrowth:
    """The context will not grow: sequences that do not fit it by themselves end with ``error``."""

    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Stop:
    """Free everything and end the engine's thread.

    Attributes:
        suspend: whether sequences leave as Suspended rather than Cancelled.
        keep_bytes: limit of the KV state that stays in host memory; suspended sequences come first, then prompts.
        park: whether the weights stay in memory.
        discard: whether no prompt is kept, neither in memory nor on disk, because its weights no longer exist.
    """

    suspend: bool = False
    keep_bytes: int = 0
    park: bool = False
    discard: bool = False
