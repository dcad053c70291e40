"""The inputs of the residency machine: what happens outside of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.waiting import RequestId, UnloadMode


@dataclass(frozen=True, slots=True)
class Tick:
    """The time is ``now``, in seconds of a monotonic clock."""

    now: float


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A request for the model has arrived.

    Attributes:
        priority: None means the model's own.
        wait_s: longest time that the request waits for the model; 0: not at all; None: the policy's.
        keep_alive_s: how long the model stays loaded when it is idle after this request; None: as configured.
        content: digest that is equal for requests with the same input; "" while no content is refused.
        continues: the request that left a hold, which this one takes; None: it begins an answer.
        cells: KV cells that it needs, as far as that is known.
    """

    model: str
    request: RequestId
    priority: int | None = None
    wait_s: float | None = None
    keep_alive_s: float | None = None
    content: str = ""
    continues: RequestId | None = None
    cells: int = 0


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over, whether it waited, held a lease or was suspended. An unknown request is ignored.

    Attributes:
        leaves_hold: whether a request that held a lease leaves a hold; see ``Hold``.
    """

    model: str
    request: RequestId
    leaves_hold: bool = False


@dataclass(frozen=True, slots=True)
class HoldReleased:
    """No further request takes the hold of ``request``. An unknown hold is ignored."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class RequestSuspended:
    """A lease has ended, but not its request, whose saved state holds ``kept_bytes`` of host memory.

    Attributes:
        cells: KV cells that it needs to go on.
    """

    model: str
    request: RequestId
    kept_bytes: int
    cells: int = 0


@dataclass(frozen=True, slots=True)
class RequestCleared:
    """An engine has computed a token for a request that was a suspect in an engine's death."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """An unload of the model was asked for; ``mode`` decides what becomes of its requests."""

    model: str
    request: RequestId
    mode: UnloadMode = UnloadMode.DRAIN


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """A load of the model was asked for."""

    model: str
    request: RequestId


@dataclass(frozen=True, slots=True)
class Sized:
    """The outcome of ComputeFootprint: the memory that the model will take.

    Attributes:
        footprint: where it computes fastest.
        alternatives: in its other placements, the faster first.
    """

    model: str
    footprint: Footprint
    alternatives: tuple[Footprint, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineLoaded:
    """The outcome of StartLoad: the model serves.

    Attributes:
        measured: memory that it takes; None: as predicted.
        is_isolated: whether its engine has a process of its own.
    """

    model: str
    measured: Footprint | None = None
    is_isolated: bool = False


@dataclass(frozen=True, slots=True)
class GrowthWanted:
    """The engine of a loaded model could use a larger context.

    Attributes:
        needed: KV cells without which some of its requests wait.
        desired: KV cells that it would use.
    """

    model: str
    needed: int
    desired: int


@dataclass(frozen=True, slots=True)
class EngineResized:
    """The outcome of Resize: the context of the model has ``cells`` KV cells.

    Attributes:
        failure: why these are not as asked for; "" where they are.
    """

    model: str
    cells: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class EngineLoadFailed:
    """The outcome of ComputeFootprint or StartLoad: the model does not serve, and holds no memory.

    Attributes:
        lacks_device_memory: whether a device did not have the memory that was predicted.
    """

    model: str
    reason: str
    lacks_device_memory: bool = False


@dataclass(frozen=True, slots=True)
class EngineFreed:
    """The outcome of Free: the memory of the model is free, except for what is kept.

    Attributes:
        prefix_bytes: host memory that is kept for prompts to reuse.
        keeps_weights: whether the weights stay in memory.
    """

    model: str
    prefix_bytes: int = 0
    keeps_weights: bool = False


@dataclass(frozen=True, slots=True)
class EngineDying:
    """A model's engine failed while it served, or while it was being freed. EngineDied follows once its memory is free.

    Until then every lease ends: by RequestSuspended where the request goes on, else by RequestEnded.

    Attributes:
        active: requests that the engine was computing or reading, with their contents; one may be the cause.
    """

    model: str
    reason: str
    active: tuple[tuple[RequestId, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineDied:
    """A model's engine has failed and holds no memory: it was dying, or it did not serve yet."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class WeightsLost:
    """The process that held the weights of a parked model has ended: the weights are free."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilesWrittenOver:
    """A file that the model's engine, or its parked weights, have mapped was changed or truncated in place.

    Attributes:
        file: name of the first such file.
    """

    model: str
    file: str


@dataclass(frozen=True, slots=True)
class FilesReplaced:
    """The outcome of StartLoad: nothing was loaded, because a file was replaced after the model was sized.

    Attributes:
        file: name of the first such file.
    """

    model: str
    file: str


@dataclass(frozen=True, slots=True)
class Outgrown:
    """The outcome of StartLoad: nothing was loaded, because the model takes more there than it was sized with.

    Attributes:
        footprint: of the model in the placement that it was to be loaded in.
    """

    model: str
    footprint: Footprint


@dataclass(frozen=True, slots=True)
class Outdated:
    """The memory of devices is another than the model was sized for: it is sized again before its next load."""

    model: str


@dataclass(frozen=True, slots=True)
class ModelAdded:
    """A model was added to the configuration."""

    model: str
    policy: ModelPolicy


@dataclass(frozen=True, slots=True)
class ModelRetuned:
    """The policy of a model has changed."""

    model: str
    policy: ModelPolicy


@dataclass(frozen=True, slots=True)
class AdaptersChanged:
    """The adapters of a model have changed, by which it takes ``added_bytes`` more beside its weights, or less."""

    model: str
    added_bytes: int


@dataclass(frozen=True, slots=True)
class ModelRetired:
    """The model gets no further requests: it is removed once its present ones are served."""

    model: str


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """The models may take ``budget_bytes`` together from now on."""

    budget_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceBudgetsChanged:
    """The models may take these bytes of each device from now on, by the name of its pool; of others none."""

    budgets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """The yard closes: every request is refused from now on, and everything is freed without waiting for leases."""


RequestEvent = (
    RequestArrived | RequestEnded | HoldReleased | RequestSuspended | RequestCleared | UnloadAsked | ReloadAsked
)
EngineReport = (
    Sized
    | EngineLoaded
    | GrowthWanted
    | EngineResized
    | EngineLoadFailed
    | EngineFreed
    | EngineDying
    | EngineDied
    | WeightsLost
    | FilesWrittenOver
    | FilesReplaced
    | Outgrown
)
ModelEvent = RequestEvent | EngineReport | Outdated | ModelRetuned | AdaptersChanged | ModelRetired
ResidencyEvent = ModelEvent | ModelAdded | BudgetChanged | DeviceBudgetsChanged | Tick | CloseAsked
