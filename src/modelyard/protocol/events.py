"""What an engine tells: how loading goes, what a sequence has produced, how it ended. All of it is immutable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from modelyard.errors import ModelyardError
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.values import EngineStats, FinishReason, Reading, SequenceId, TokenLogprob, Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelyard.protocol.kv_snapshot import KeptPrefixes
    from modelyard.protocol.suspended import SuspendedSequence


class HeldWeights(Protocol):
    """Weights that stay in memory, wherever that is."""

    def release(self) -> None:
        """Give them up, once; returns when they are free, where nothing else uses them."""


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
class Started:
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

SequenceEvent = Accepted | Started | Token | Finished | Answered | Cancelled | Suspended | Returned | Failed

EngineEvent = (
    LoadProgress | Loaded | EngineStats | LoadFailed | FileWrittenOver | Dying | Died | Stopped | ParkedWeightsLost
)

Event = SequenceEvent | EngineEvent

Publish: TypeAlias = Callable[[Sequence[Event]], None]
"""Takes events of one engine, in order. May be called on any thread."""
