"""What an engine is asked to do. All of it is immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelyard.protocol.prompts import Chat, Prompt, Sampling, Text, Tokens
from modelyard.protocol.values import SequenceId

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Submit:
    """Start a sequence.

    Attributes:
        max_tokens: None: as many as the context holds.
        priority: a higher one goes first in line.
        response_format, grammar: what the answer must follow, behind the model's reasoning; OpenAI's field and the
            reference's, as ``engine.chat.grammar.grammar_of`` reads them.
        logprobs: how many of the likeliest tokens are told beside each token of the answer; None: nothing is told.
        echoes: whether the answer begins with the prompt.
        prediction: text that the answer may well be: where it is, it comes faster.
        alone: compute it in steps of its own until its first token: it was being computed when an engine died.
        cache_salt: only what was computed for requests of the same salt is reused for it; see ``AccessKey.cache_salt``.
        max_context: tokens of prompt and answer together; None: as many as the context holds.
        max_answer: tokens of an answer, also where the request names none; None: any number.
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
    echoes: bool = False
    prediction: str = ""
    alone: bool = False
    cache_salt: str = ""
    max_context: int | None = None
    max_answer: int | None = None


@dataclass(frozen=True, slots=True)
class Embed:
    """Turn each of ``inputs`` into a vector; as a request it goes by a sequence's number.

    priority, alone and max_context (of each) are as in Submit. truncates: a text that is too long is cut, and not
    refused.
    """

    sequence: SequenceId
    inputs: tuple[Text | Tokens, ...]
    priority: int = 0
    truncates: bool = False
    alone: bool = False
    max_context: int | None = None


@dataclass(frozen=True, slots=True)
class Rank:
    """Score how well each of ``documents`` answers ``query``; as a request it goes by a sequence's number.

    Attributes:
        most_tokens: of a document; a longer one is cut. None: one that does not fit is refused.
        priority, alone: as in Submit.
        max_context: the same, of each document with the query.
    """

    sequence: SequenceId
    query: str
    documents: tuple[str, ...]
    most_tokens: int | None = None
    priority: int = 0
    alone: bool = False
    max_context: int | None = None


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Say which tokens ``prompt`` becomes, and compute nothing of it; as a request it goes by a sequence's number.

    Attributes:
        prompt: a chat is written out by its template; tokens are taken as they are.
        add_special: whether a text has the tokens around it that the model wants there; chats have what is written.
        parse_special: whether special tokens that are spelt out in a text count as such.
        alone, cache_salt: as in Submit; what is looked at for its images is kept.
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
    """Have another place among the engines of the device; see ``EngineSettings``."""

    weight: float
    priority: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Free everything and end the thread.

    Attributes:
        suspend: all sequences leave as Suspended; else they are Cancelled.
        keep_bytes: of KV state that may stay in host memory: that of suspended sequences first, then of prompts.
        park: the weights stay, too.
        discard: no prompt is kept, neither in memory nor on disk: the weights that made it are no more.
    """

    suspend: bool = False
    keep_bytes: int = 0
    park: bool = False
    discard: bool = False
