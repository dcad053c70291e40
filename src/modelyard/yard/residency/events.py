"""What happens to the residency machine, and what it wants done. Events go in, effects come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelyard.errors import ModelyardError
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.state import ModelPolicy, RequestId, UnloadMode


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has come to ``now``, in seconds of a clock that never goes back."""

    now: float


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """Somebody wants to use the model.

    Attributes:
        priority: None means the model's own.
        wait_s: that the caller wants to wait at most for the model; 0: not at all. None: as long as the policy has it.
        keep_alive_s: that the model stays when it is idle after this request; None: as it is configured.
        content: equal for requests that ask the same of the model; "" where no content is refused at the moment.
    """

    model: str
    request: RequestId
    priority: int | None = None
    wait_s: float | None = None
    keep_alive_s: float | None = None
    content: str = ""


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over, whether it waited, held a lease or was suspended. One that is not known is ignored."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class RequestSuspended:
    """A lease is over without its request: what it needs to go on holds ``kept_bytes`` of host memory."""

    model: str
    request: RequestId
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class RequestCleared:
    """An engine has computed a token for a request that was suspected of ending its engine."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """Free the model; what becomes of its requests is said by ``mode``."""

    model: str
    request: RequestId
    mode: UnloadMode = UnloadMode.DRAIN


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """Have the model loaded."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class Sized:
    """The outcome of Size: what the model will take."""

    model: str
    footprint: Footprint


@dataclass(frozen=True, slots=True)
class EngineLoaded:
    """The outcome of StartLoad: it serves, and takes what was measured (None: as predicted).

    is_isolated: its engine has a process of its own.
    """

    model: str
    measured: Footprint | None = None
    is_isolated: bool = False


@dataclass(frozen=True, slots=True)
class EngineLoadFailed:
    """The outcome of Size or StartLoad: it does not serve, and holds no memory."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineFreed:
    """The outcome of Free: it holds no memory but ``prefix_bytes`` of the host's, for prompts to reuse.

    And its weights, where they were to stay.
    """

    model: str
    prefix_bytes: int = 0
    keeps_weights: bool = False


@dataclass(frozen=True, slots=True)
class EngineDying:
    """A model's engine failed while it served, or while it was being freed. Its memory is free with EngineDied.

    Until then every lease ends: by RequestSuspended where the request goes on, else by RequestEnded.

    Attributes:
        active: requests that it was computing or reading, one of which may be the cause, each with its content.
    """

    model: str
    reason: str
    active: tuple[tuple[RequestId, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineDied:
    """A model's engine failed, and holds no memory: one that was dying, or that did not serve yet."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class WeightsLost:
    """What held the weights of a parked model has ended: they are free."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilesWrittenOver:
    """What the model's engine, or its parked weights, have mapped is no longer what was loaded.

    Attributes:
        file: name of the first of its files that changed, or was cut off, in place.
    """

    model: str
    file: str


@dataclass(frozen=True, slots=True)
class FilesReplaced:
    """The outcome of StartLoad: nothing was loaded, because the model's files are not those that were sized.

    Attributes:
        file: name of the first of them that is another one.
    """

    model: str
    file: str


@dataclass(frozen=True, slots=True)
class ModelAdded:
    """There is one more model."""

    model: str
    traits: ModelPolicy


@dataclass(frozen=True, slots=True)
class ModelRetuned:
    """A model is to be treated differently from now on."""

    model: str
    traits: ModelPolicy


@dataclass(frozen=True, slots=True)
class ModelRetired:
    """Nobody will ask for the model any more: forget it when those who have asked are served."""

    model: str


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """The models may take so much from now on."""

    budget_bytes: int


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """Refuse everybody from now on, and free everything without waiting for leases."""


ModelEvent = (
    RequestArrived
    | RequestEnded
    | RequestSuspended
    | RequestCleared
    | UnloadAsked
    | ReloadAsked
    | Sized
    | EngineLoaded
    | EngineLoadFailed
    | EngineFreed
    | EngineDying
    | EngineDied
    | WeightsLost
    | FilesWrittenOver
    | FilesReplaced
    | ModelRetuned
    | ModelRetired
)
ResidencyEvent = ModelEvent | ModelAdded | BudgetChanged | Tick | CloseAsked


@dataclass(frozen=True, slots=True)
class ComputeFootprint:
    """Look at the model's files; answer with Sized or LoadFailed."""

    model: str


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Load the model; answer with EngineLoaded, EngineLoadFailed, EngineDied or FilesReplaced."""

    model: str


FreeReason = Literal["asked", "idle", "room", "budget", "retired", "closing", "changed"]


@dataclass(frozen=True, slots=True)
class Free:
    """Free the model; answer with Freed, after an end of every lease: RequestSuspended or RequestEnded.

    Attributes:
        suspends: leases are suspended; else they end with an error.
        keep_bytes: of host memory that may be held afterwards, beside the weights.
        why: for people.
        keeps_weights: they stay; of a parked model, which has nothing else, they never do.
        reason: which kind of why, for statistics: an unload was asked for, it was idle, another needed the memory,
            more was used than the budget has, it is no longer configured, the yard closes, its files were written over:
            then nothing of it is kept anywhere.
    """

    model: str
    suspends: bool
    keep_bytes: int
    why: str
    keeps_weights: bool = False
    reason: FreeReason = "asked"


@dataclass(frozen=True, slots=True)
class DiscardKept:
    """Drop the host memory that outlived the model's unload. Suspended requests are computed again."""

    model: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The request holds a lease: it may use the model until RequestEnded or RequestSuspended.

    alone: it is computed in steps of its own until its first token, because it may be what ended an engine.
    """

    model: str
    request: RequestId
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """The request, or the caller of an unload or reload, gets ``error``."""

    model: str
    request: RequestId
    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Blame:
    """The request, which held a lease, is the cause of an engine's death: it gets ``error``, and its lease is over."""

    model: str
    request: RequestId
    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Abort:
    """The request, which held a lease or was suspended, cannot go on: it gets ``error``, and its lease is over."""

    model: str
    request: RequestId
    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Complete:
    """What the caller of an unload or reload waited for has happened."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class Remove:
    """A retired model is no longer known."""

    model: str


Effect = ComputeFootprint | StartLoad | Free | DiscardKept | Grant | Reject | Blame | Abort | Complete | Remove
