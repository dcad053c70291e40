"""What waits for a model: queued requests and operations, answers that go on, and contexts that change. Values only."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, NewType

RequestId = NewType("RequestId", int)

MOVE = RequestId(-1)
"""The number of a load that moves a model to a faster placement, without a caller."""


class WaitKind(Enum):
    """What a waiter in a model's queue waits for."""

    LEASE = "lease"
    RESUME = "resume"
    """Another lease: the request was suspended in the middle of its answer."""
    CONTINUE = "continue"
    """A lease for a request that goes on with the answer of another; see ``Hold``."""
    LOAD = "load"
    UNLOAD = "unload"


class UnloadMode(Enum):
    """What an unload does to the requests that the model is serving."""

    DRAIN = "drain"
    """The unload waits until they end."""
    SUSPEND = "suspend"
    """They are suspended, and go on when the model is loaded again."""
    FORCE = "force"
    """They end with an error."""
    PARK = "park"
    """The unload waits until they end, and then frees everything but the weights."""

    @property
    def waits(self) -> bool:
        """Whether the unload waits for the requests before it."""
        return self in (UnloadMode.DRAIN, UnloadMode.PARK)


class Waiter(NamedTuple):
    """One queued request or operation.

    Attributes:
        kind: what it waits for.
        request: number of the request or operation.
        order: place in the order of arrival, over all models.
        since, until: on the clock of Tick; at ``until`` it is refused.
        priority: of a request; a higher one goes first.
        mode: of an unload.
        does_not_trigger_load: whether it is a request that has begun and waits until other requests load its model.
        kept_bytes: host memory that a suspended request holds.
        cells: KV cells that a request needs, as far as that is known.
    """

    kind: WaitKind
    request: RequestId
    order: int
    since: float
    until: float
    priority: int = 0
    mode: UnloadMode = UnloadMode.DRAIN
    does_not_trigger_load: bool = False
    kept_bytes: int = 0
    cells: int = 0

    @property
    def wants_load(self) -> bool:
        """Whether a loaded model serves it."""
        return self.kind is not WaitKind.UNLOAD

    @property
    def is_request(self) -> bool:
        """Whether it waits for a lease."""
        return self.kind is WaitKind.LEASE or self.has_begun

    @property
    def has_begun(self) -> bool:
        """Whether it waits for a lease in the middle of an answer."""
        return self.kind is WaitKind.RESUME or self.kind is WaitKind.CONTINUE


class Hold(NamedTuple):
    """What a request leaves behind whose answer goes on with another request for the same model.

    While a model has holds, it counts as in use: it is not unloaded for being idle, and it makes room for others like a
    model with leases, though at once, because nothing of it is computed.

    Attributes:
        priority: of the request.
        does_not_trigger_load: whether the next request waits until others load the model, because it was unloaded on
            purpose.
    """

    priority: int
    does_not_trigger_load: bool = False


class Growth(NamedTuple):
    """A loaded model waits for a larger context: until it has one, some of its requests wait in its engine.

    Attributes:
        needed: KV cells without which it cannot serve them.
        desired: KV cells that it would use.
        order, since: as of a ``Waiter``.
    """

    needed: int
    desired: int
    order: int
    since: float


class Resizing(NamedTuple):
    """The context of a loaded model gets another size.

    Attributes:
        cells: KV cells of the smallest size that it may get.
        kept_bytes: host memory that states may take until then.
        is_needed: whether its requests wait for it.
    """

    cells: int
    kept_bytes: int
    is_needed: bool = False
