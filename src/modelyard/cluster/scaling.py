"""How many nodes there should be, by what they report. Pure.

Nodes join where requests wait longer than they may: at once, because a node takes minutes to start. They leave one by
one, where the others take what runs and hold the models that are in use with ease, and all of them where nothing has
been asked for: what still runs on a node that leaves goes on elsewhere, and models would have to be loaded there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

from modelyard.yard.residency.state import LoadState, ModelState, Residency

MAX_GROWTH: Final = 2.0
"""How many times as many nodes there may be after one decision."""

FILLED: Final = 0.3
"""Part of the slots of the nodes that stay which requests may take where one leaves: far below what makes one join."""

HELD: Final = 0.8
"""Part of the memory of the nodes that stay which the models in use may take where one leaves."""

QUICK: Final = 0.5
"""Part of the target that the time to the first token may have where a node leaves."""

IN_USE_S: Final = 300.0
"""Seconds after its last request in which a model counts as in use."""

MAX_NOTED: Final = 1000
"""Requests whose time to the first token is kept."""


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """What a node has to do, or the sum of several nodes.

    Attributes:
        waiting, running: requests in the queues of its models, and in their engines.
        slots: requests that one of its models computes at the same time.
        first_token_s: seconds to the first token of late, without loads; 0 where nothing was asked for.
        in_use_bytes: memory of the models that are loaded and in use.
        budget_bytes: memory that its models may take together.
    """

    waiting: float = 0.0
    running: float = 0.0
    slots: float = 0.0
    first_token_s: float = 0.0
    in_use_bytes: float = 0.0
    budget_bytes: float = 0.0

    def values(self) -> dict[str, float]:
        """Return the load as named numbers."""
        return asdict(self)


def sum_of(loads: Mapping[str, Iterable[float]]) -> NodeLoad:
    """Return the sum of the loads of nodes, of the values that ``NodeLoad.values`` names, of each node."""
    return NodeLoad(**{each.name: float(sum(loads.get(each.name, ()))) for each in fields(NodeLoad)})


def load_of(state: Residency, now: float, slots: int, first_token_s: float) -> NodeLoad:
    """Return the load of a node whose residency is ``state``."""
    models = state.models.values()
    return NodeLoad(
        float(sum(waiter.is_request for model in models for waiter in model.queue)),
        float(sum(len(model.leases) for model in models)),
        float(slots),
        first_token_s,
        float(sum(_size(model) for model in models if _is_in_use(model, now))),
        float(state.budget_bytes),
    )


def _is_in_use(model: ModelState, now: float) -> bool:
    if model.load_state not in (LoadState.LOADED, LoadState.LOADING):
        return False
    return bool(model.leases or model.queue) or now - max(model.last_used, model.load_began) < IN_USE_S


def _size(model: ModelState) -> int:
    return 0 if model.footprint is None else model.footprint.total_bytes


def nodes_wanted(present: int, load: NodeLoad, target_queue: float, target_first_token_s: float | None = None) -> int:
    """Return how many nodes there should be; bounds are the caller's.

    Args:
        present: nodes that there are.
        load: of all of them together.
        target_queue: requests that may wait on a node, on average.
        target_first_token_s: seconds that the first token may take, on average, in place of ``target_queue``; None:
            that counts.
    """
    if not load.waiting and not load.running:
        # One that is loaded but idle is no reason to stay.
        return 0
    present = max(1, present)
    if target_first_token_s is None:
        excess = load.waiting / (present * target_queue)
    else:
        excess = load.first_token_s / (present * target_first_token_s)
    if excess > 1:
        return math.ceil(present * min(MAX_GROWTH, excess))
    staying = (present - 1) / present
    has_room = load.running <= FILLED * staying * load.slots and load.in_use_bytes <= HELD * staying * load.budget_bytes
    is_quick = target_first_token_s is None or excess <= QUICK
    return present - 1 if present > 1 and not load.waiting and has_room and is_quick else present


class FirstTokens:
    """The times to the first token of the requests that a node has answered of late.

    Args:
        lately_s: seconds for which each counts.
    """

    def __init__(self, lately_s: float = 60.0) -> None:
        self._lately_s = lately_s
        self._found: deque[tuple[float, float]] = deque(maxlen=MAX_NOTED)

    def note(self, seconds: float, now: float) -> None:
        """Note that a request has had its first token after so many seconds."""
        self._drop(now)
        self._found.append((now, seconds))

    def mean_s(self, now: float, waiting: Iterable[float] = ()) -> float:
        """Return the mean of late; 0 where nothing was asked for.

        Args:
            now: the present time.
            waiting: how long each of those has waited that have no token yet. They count where that raises the mean.
        """
        self._drop(now)
        seconds = [each for _, each in self._found]
        mean = sum(seconds) / len(seconds) if seconds else 0.0
        late = [each for each in waiting if each > mean]
        return (sum(seconds) + sum(late)) / (len(seconds) + len(late)) if seconds or late else 0.0

    def _drop(self, now: float) -> None:
        while self._found and now - self._found[0][0] > self._lately_s:
            self._found.popleft()
