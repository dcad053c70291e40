"""How models are treated, and how long requests wait, as configured."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from modelyard.yard.requests.model_names import ModelId


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """How a model is treated, as configured.

    Attributes:
        name: id of the model.
        max_requests: bound of leases and waiting requests together; further ones are refused.
        max_running: requests that its engine computes at once.
        is_pinned: whether it is never evicted, nor unloaded when idle.
        priority: of requests that name none; a higher one goes first.
        idle_unload_s: seconds without a request after which it is unloaded; infinite: never.
    """

    name: ModelId
    max_requests: int
    is_pinned: bool = False
    priority: int = 0
    idle_unload_s: float = math.inf
    max_running: int = sys.maxsize


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """The bounds of waiting, in seconds.

    Attributes:
        max_wait_s: longest time in a queue. OpenAI's clients time out after as long.
        min_residency_s: how long a busy model stays loaded before it makes room for another.
        residency_per_load: a busy model also stays this many times as long as its load took, so that models do not
            spend most of the time loading.
        drain_s: how long the running requests of a model that makes room go on before they are suspended.
        patience_s: after this time a request counts as urgent as those whose model holds the memory, whatever the
            priorities, and precedes younger ones whose models load sooner.
    """

    max_wait_s: float = 600.0
    min_residency_s: float = 1.0
    residency_per_load: float = 4.0
    drain_s: float = 2.0
    patience_s: float = 60.0
