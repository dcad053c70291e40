"""What crosses the boundary of an engine's thread: requests in, events out. All of it is immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NewType

from modelyard.errors import ModelyardError
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Chat, Prompt, Sampling, Text, Tokens

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    import numpy.typing as npt

    from modelyard.engine.guidance import Constraint
    from modelyard.engine.loading.weights import HeldWeights
    from modelyard.protocol.kv_snapshot import KeptPrefixes
    from modelyard.protocol.suspended import SuspendedSequence

SequenceId = NewType("SequenceId", int)

FinishReason = Literal["stop", "length"]


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
class Resume:
    """Go on with a sequence that was suspended, on this engine or another of the same weights and settings.

    alone is as in Submit.
    """

    state: SuspendedSequence
    alone: bool = False

    @property
    def sequence(self) -> SequenceId:
        """Its number."""
        return self.state.sequence


@dataclass(frozen=True, slots=True)
class Restore:
    """Keep these prompts for reuse, as before the last Stop. Sent before any sequence."""

    kept: KeptPrefixes


@dataclass(frozen=True, slots=True)
class Reseat:
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


@dataclass(frozen=True, slots=True)
class Compiled:
    """The grammar of a sequence is ready, or is none. Sent by the engine's own thread for grammars."""

    sequence: SequenceId
    constraint: Future[Constraint | None]


@dataclass(frozen=True, slots=True)
class PromptRead:
    """What a sequence brought is tokens now, or is refused. Sent by the engine's own threads that read."""

    sequence: SequenceId
    outcome: Future[Any]


Request = Submit | Embed | Rank | Tokenize | Resume
Message = Request | Cancel | PromptRead | Compiled | Restore | Reseat | Stop


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Part of the weights that is read, from 0 to 1."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine serves from now on."""

    profile: ModelProfile


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine could not load its model; it has freed what it had and its thread ends."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dying:
    """The engine failed while serving: it hears nothing any more, its sequences leave it next, and last it says Died.

    active: requests that it was computing, or whose texts it was reading, when it failed: one of them may be the cause.
    """

    reason: str
    active: tuple[SequenceId, ...] = ()


@dataclass(frozen=True, slots=True)
class Died:
    """An engine that was Dying: its sequences have left it, it has freed what it had, its thread or process ends.

    Of one that did not serve yet it comes without Dying: its process ended while it loaded.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The engine has freed everything, as it was told, but what it kept of prompts in host memory, and the weights."""

    kept: KeptPrefixes | None = None
    parked: HeldWeights | None = None


@dataclass(frozen=True, slots=True)
class FileWrittenOver:
    """A file that the engine, or what it has parked, has mapped is not what it was: what is computed is nonsense.

    file is its name. Comes before Dying where the engine has died of it.
    """

    file: str


@dataclass(frozen=True, slots=True)
class ParkedWeightsLost:
    """The process that held the parked weights of a model has ended: they are free. Comes after Stopped."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How the text of an answer is to be read; see ``modelyard.engine.chat.chat_format``.

    Attributes:
        tools: the format of tool calls, by its name in the registry.
        reasoning: that of reasoning, by name; "" for none.
        is_open: whether the prompt ends within reasoning.
    """

    tools: str
    reasoning: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class Vitals:
    """How an engine is. Published about once a second while it computes, and when it has become idle.

    Attributes:
        running, waiting: sequences in the batch, and in line for it.
        kv_cells, used_cells: of the KV cache; a cell holds one token, kept prompts take theirs.
        preemptions: sequences that gave way because the cache was full, since the last Vitals.
        pictures_encoded, pictures_reused: images, or tiles of them, that the projector encoded since then, and that
            were shown again from what it had encoded before.
    """

    running: int
    waiting: int
    kv_cells: int
    used_cells: int
    preemptions: int
    pictures_encoded: int = 0
    pictures_reused: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """A sequence passed all checks and is in line.

    Attributes:
        reading: None where its text is all there is to it.
        tokens: of its prompt, those of images below 0.
    """

    sequence: SequenceId
    prompt_tokens: int
    reading: Reading | None = None
    tokens: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was.

    Attributes:
        token: its bytes.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens in its place, likeliest first, with theirs.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """A sequence has left the line: its prompt is being computed. Not told again after a preemption or suspension.

    cached_tokens of its prompt were computed before.
    """

    sequence: SequenceId
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """Text that became certain with one step of one sequence.

    text is complete UTF-8 that no stop string can still claim, never a broken character; "" where a step makes none
    certain.

    Attributes:
        ids: the tokens of the answer that the step computed; () for an echo of the prompt.
        pending_logprobs: of the last tokens so far whose text is not certain yet; logprobs has them later.
    """

    sequence: SequenceId
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    ids: tuple[int, ...] = ()
    pending_logprobs: tuple[TokenLogprob, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Hot path between processes: a third of the time that a dataclass takes."""
        return Token, (self.sequence, self.text, self.logprobs, self.ids, self.pending_logprobs)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. cached_tokens of the prompt were reused and cost no prefill."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A sequence is complete. stop is the stop string that ended it, where one did."""

    sequence: SequenceId
    reason: FinishReason
    usage: Usage
    stop: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """All inputs of an Embed are done.

    Attributes:
        vectors: [inputs, dimensions], each of length 1.
        prompt_tokens: of all inputs.
    """

    sequence: SequenceId
    vectors: npt.NDArray[np.float32]
    prompt_tokens: int

    @property
    def usage(self) -> Usage:
        """Nothing but the prompts."""
        return Usage(self.prompt_tokens, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """All documents of a Rank are scored.

    Attributes:
        scores: [documents], each from 0 to 1.
        prompt_tokens: of all documents, each with the query.
    """

    sequence: SequenceId
    scores: npt.NDArray[np.float32]
    prompt_tokens: int

    @property
    def usage(self) -> Usage:
        """Nothing but the prompts."""
        return Usage(self.prompt_tokens, 0, 0)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What a Tokenize asked for.

    Attributes:
        tokens: ids; those of images are below 0.
        pieces: the bytes that each stands for; special tokens are spelt out.
    """

    sequence: SequenceId
    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...]

    @property
    def usage(self) -> Usage:
        """Nothing: the model computed nothing."""
        return Usage(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Returned:
    """A request left the engine as it came, by a Stop that suspends or by a death: it is to be sent again."""

    sequence: SequenceId


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A sequence was ended by Cancel or Stop. usage is what it had used by then, where it had begun."""

    sequence: SequenceId
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Suspended:
    """A sequence left the engine in the middle of its answer, by a Stop that suspends or by a death."""

    sequence: SequenceId
    state: SuspendedSequence


@dataclass(frozen=True, slots=True)
class Failed:
    """A sequence was refused, or could not go on. usage is what it had used by then, where it had begun."""

    sequence: SequenceId
    error: ModelyardError
    usage: Usage | None = None


# Every sequence that was submitted or resumed gets exactly one of Finished, Cancelled, Suspended, Failed, as its last
# event on an engine; what was sent to be embedded, ranked or tokenised gets one of Embedded, Ranked or Tokenized,
# Cancelled, Returned, Failed.
Answered = Embedded | Ranked | Tokenized
SequenceEvent = Accepted | Begun | Token | Finished | Answered | Cancelled | Suspended | Returned | Failed
EngineEvent = LoadProgress | Loaded | Vitals | LoadFailed | FileWrittenOver | Dying | Died | Stopped | ParkedWeightsLost
Event = SequenceEvent | EngineEvent
