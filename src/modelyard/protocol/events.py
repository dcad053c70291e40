"""Events that an engine publishes: the progress of loading, and the output and end of sequences. All are immutable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.errors import ModelyardError
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.values import EngineStats, FinishReason, OutputFormat, SequenceId, TokenLogprob, Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelyard.protocol.kv_snapshot import KeptPrefixes
    from modelyard.protocol.suspended import SuspendedSequence


class HeldWeights(Protocol):
    """Weights that stay in memory, of this process or of another."""

    def release(self) -> None:
        """Release the weights; called once. If nothing else uses them, their memory is free on return."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The fraction of the weights that has been read, from 0 to 1."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine has loaded its model and serves requests."""

    profile: ModelProfile


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine could not load its model. It has freed its memory, and its thread ends.

    lacks_device_memory: whether a device could not allocate what the model needs there.
    """

    reason: str
    lacks_device_memory: bool = False


@dataclass(frozen=True, slots=True)
class Dying:
    """The engine failed while serving. It reads no more messages; its sequences leave it next, and Died comes last.

    active: requests that it was computing or tokenising when it failed; one of them may be the cause.
    """

    reason: str
    active: tuple[SequenceId, ...] = ()


@dataclass(frozen=True, slots=True)
class Died:
    """The last event of an engine that was Dying: its memory is free, and its thread or process ends.

    An engine whose process ends while it loads publishes it without Dying.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The engine was stopped. It has freed everything except the prompts and weights that Stop asked it to keep."""

    kept: KeptPrefixes | None = None
    parked: HeldWeights | None = None


@dataclass(frozen=True, slots=True)
class FileWrittenOver:
    """A file that is mapped by the engine, or for its parked weights, was written over, so outputs are meaningless.

    file is its name. Precedes Dying if the engine died of it.
    """

    file: str


@dataclass(frozen=True, slots=True)
class ParkedWeightsLost:
    """The process that held a model's parked weights has ended, which freed them. Comes after Stopped."""

    reason: str


@dataclass(frozen=True, slots=True)
class ContextWanted:
    """The engine could use a larger context. Published again, at intervals, as long as that is so.

    Published once more, with fewer cells needed than there are, where its sequences no longer wait for one.

    Attributes:
        needed: KV cells without which sequences will wait or be preempted.
        desired: cells with which kept prefixes stay, too.
    """

    needed: int
    desired: int


@dataclass(frozen=True, slots=True)
class ContextResized:
    """The answer to a ``Resize``.

    Attributes:
        cells: KV cells that the context has now.
        failure: why these are not as many as were asked for; "" where they are.
    """

    cells: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A sequence passed all checks and is queued.

    Attributes:
        output_format: how its output is parsed; None: it is plain text.
        tokens: token ids of its prompt; those of images are below 0.
        dropped: parts of the constraints on its answer that are not enforced, such as ``response_format.uniqueItems``.
        repairs: a phrase for each change that the conversation needed before the chat template took it.
    """

    sequence: SequenceId
    prompt_tokens: int
    output_format: OutputFormat | None = None
    tokens: tuple[int, ...] = field(default=(), repr=False)
    dropped: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The prefill of a sequence has begun. Published once, not again after a preemption or suspension.

    cached_tokens: tokens of its prompt whose KV state was reused.
    """

    sequence: SequenceId
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """So many tokens of a prompt are computed, those whose KV state was reused included."""

    sequence: SequenceId
    computed: int


@dataclass(frozen=True, slots=True)
class PromptScored:
    """The log-probabilities of all tokens of a prompt. Published again if the prompt was computed again."""

    sequence: SequenceId
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """Text that became certain with one step of one sequence.

    Attributes:
        text: complete UTF-8 that can no longer become part of a stop string; "" if the step made no text certain.
        ids: the tokens of the answer that the step computed; () for an echo of the prompt.
        pending_logprobs: logprobs of the latest tokens whose text is not certain yet; a later event repeats them in
            ``logprobs``.
    """

    sequence: SequenceId
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    ids: tuple[int, ...] = ()
    pending_logprobs: tuple[TokenLogprob, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by constructor arguments: on the hot path between processes, in a third of a dataclass's time."""
        return Token, (self.sequence, self.text, self.logprobs, self.ids, self.pending_logprobs)


@dataclass(frozen=True, slots=True)
class Finished:
    """A sequence is complete. stop is the stop string that ended it, if any."""

    sequence: SequenceId
    reason: FinishReason
    usage: Usage
    stop: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The result of an Embed.

    Attributes:
        vectors: [inputs, dimensions], each of length 1.
        prompt_tokens: sum over all inputs.
    """

    sequence: SequenceId
    vectors: npt.NDArray[np.float32]
    prompt_tokens: int

    @property
    def usage(self) -> Usage:
        """Return the usage, which has prompt tokens only."""
        return Usage(self.prompt_tokens, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """The result of a Rank.

    Attributes:
        scores: [documents], each from 0 to 1.
        prompt_tokens: sum over all documents, each with the query.
    """

    sequence: SequenceId
    scores: npt.NDArray[np.float32]
    prompt_tokens: int

    @property
    def usage(self) -> Usage:
        """Return the usage, which has prompt tokens only."""
        return Usage(self.prompt_tokens, 0, 0)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The result of a Tokenize.

    Attributes:
        tokens: ids; those of images are below 0.
        pieces: the bytes of each token; special tokens are spelt out.
    """

    sequence: SequenceId
    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...]

    @property
    def usage(self) -> Usage:
        """Return a usage of 0: the model computed nothing."""
        return Usage(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Returned:
    """A request left the engine unchanged, by a Stop that suspends or by the engine's death, and must be sent again."""

    sequence: SequenceId


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A sequence was ended by Cancel or Stop. usage: the tokens used so far; None if it had not started."""

    sequence: SequenceId
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Suspended:
    """A sequence left the engine in the middle of its answer, by a Stop that suspends or by the engine's death."""

    sequence: SequenceId
    state: SuspendedSequence


@dataclass(frozen=True, slots=True)
class Failed:
    """A sequence was refused, or could not continue. usage: the tokens used so far; None if it had not started."""

    sequence: SequenceId
    error: ModelyardError
    usage: Usage | None = None


# The last event of a submitted or resumed sequence on an engine is exactly one of Finished, Cancelled, Suspended and
# Failed. The last event of an Embed, Rank or Tokenize is its result, Cancelled, Returned or Failed.
Answered = Embedded | Ranked | Tokenized

Ending = Finished | Answered | Cancelled | Suspended | Returned | Failed

SequenceEvent = Accepted | Started | PromptProgress | PromptScored | Token | Ending

EngineEvent = (
    LoadProgress
    | Loaded
    | EngineStats
    | ContextWanted
    | ContextResized
    | LoadFailed
    | FileWrittenOver
    | Dying
    | Died
    | Stopped
    | ParkedWeightsLost
)

Event = SequenceEvent | EngineEvent


class Publish(Protocol):
    """Takes events of one engine, in order, a step at a time. May be called on any thread.

    In a server, the events of an engine pass four of these: ``Engine._publish_events``, then
    ``_ObservedEngine.publish`` (yard/runtime/engine_hosts.py), then the function that
    ``EngineSupervisor._publisher`` returns, which changes to the event loop's thread by ``call_soon_threadsafe``,
    and ``LifecycleController._receive``. An engine in a process of its own has two more before the second:
    ``EngineProgram._publisher`` sends the events, and ``EngineProcess`` receives them.
    """

    def __call__(self, events: Sequence[Event], /) -> None:
        """Take the next events."""
