"""What the residency machine has done by others: the effects that come of an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelyard.errors import ModelyardError
from modelyard.protocol.placement import ANYWHERE, Placement
from modelyard.yard.residency.waiting import RequestId


@dataclass(frozen=True, slots=True)
class ComputeFootprint:
    """Read the headers of the model's files; the outcome is Sized or EngineLoadFailed."""

    model: str


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Load the model where ``placement`` says; the outcome is EngineLoaded, EngineLoadFailed, EngineDied,
    FilesReplaced or Outgrown.

    Attributes:
        cells: KV cells that its context begins with; 0: all.
    """

    model: str
    placement: Placement = ANYWHERE
    cells: int = 0


@dataclass(frozen=True, slots=True)
class Resize:
    """Give the context of a loaded model another size; the outcome is EngineResized, unless the engine dies first.

    Attributes:
        sizes: KV cells that it may have, the smallest first: the first that has room for what its requests need.
        keep_bytes: host memory that states may take meanwhile.
    """

    model: str
    sizes: tuple[int, ...]
    keep_bytes: int


@dataclass(frozen=True, slots=True)
class RefuseGrowth:
    """The context of the model will not grow: requests that do not fit it by themselves end with ``error``."""

    model: str
    error: ModelyardError


FreeReason = Literal["asked", "idle", "room", "budget", "move", "retired", "closing", "changed"]


@dataclass(frozen=True, slots=True)
class Free:
    """Free the model; the outcome is EngineFreed, after the end of every lease by RequestSuspended or RequestEnded.

    Attributes:
        suspends: whether leases are suspended; otherwise they end with an error.
        keep_bytes: host memory that may be held afterwards, beside the weights.
        why: the cause, for the log.
        keeps_weights: whether the weights stay in memory; never for a parked model, which has nothing else.
        reason: the kind of cause, for statistics: "asked" for an unload, "idle", "room" for another model, "budget"
            where more is used than there is, "move" to a faster placement, "retired" where it is no longer configured,
            "closing", and "changed" where a file was written over, so that nothing of the model is kept anywhere.
    """

    model: str
    suspends: bool
    keep_bytes: int
    why: str
    keeps_weights: bool = False
    reason: FreeReason = "asked"


@dataclass(frozen=True, slots=True)
class DiscardKept:
    """Discard the host memory that outlived the model's unload. Suspended requests are computed again."""

    model: str


@dataclass(frozen=True, slots=True)
class Grant:
    """The request holds a lease: it may use the model until RequestEnded or RequestSuspended.

    Attributes:
        alone: whether it is computed in steps of its own until its first token, because it may have ended an engine.
    """

    model: str
    request: RequestId
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """The waiting request, unload or reload ends with ``error``."""

    model: str
    request: RequestId
    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Blame:
    """The request, which held a lease, has ended its engine: it fails with ``error``, and its lease is over."""

    model: str
    request: RequestId
    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Abort:
    """The request, which held a lease or was suspended, cannot go on: it fails with ``error``; its lease is over."""

    model: str
    request: RequestId
    error: ModelyardError


@dataclass(frozen=True, slots=True)
class Complete:
    """The unload or reload is done."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class Remove:
    """The retired model was removed."""

    model: str


Effect = (
    ComputeFootprint
    | StartLoad
    | Resize
    | RefuseGrowth
    | Free
    | DiscardKept
    | Grant
    | Reject
    | Blame
    | Abort
    | Complete
    | Remove
)
