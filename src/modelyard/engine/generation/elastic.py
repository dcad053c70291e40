"""A context that grows and shrinks between steps: what it should hold, and how it gets another size.

llama.cpp cannot resize a context, so the state of all slots is saved, another context is made, and the state restored
there. Cells that slots share stay shared, and layers with a sliding window keep all that they had.

Hot path: ``poll`` runs once a step; while cells are left and nobody waits, it compares three numbers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.kv.slot_windows import adapt_to_windows
from modelyard.engine.llama import Context
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.settings import PARKED_PART
from modelyard.errors import UnusableModel
from modelyard.protocol.events import ContextResized, ContextWanted
from modelyard.protocol.requests import Resize

logger = logging.getLogger(__name__)

# Tokens of an answer that cells are asked for before they are computed: to be sure of them, and to keep prefixes, too.
# An answer may end at any token, so what it could have at most is no measure.
NEEDED_AHEAD: Final = 128
DESIRED_AHEAD: Final = 512

# Free cells from which on a larger context is considered, even if no request waits.
FEW_CELLS: Final = 256

# Seconds between two looks at what all sequences need, which takes up to 0.2 ms.
LOOK_S: Final = 0.05

# Seconds for which new sequences wait for cells rather than evict prefixes, after a wish: it is granted within a few
# milliseconds where memory is free.
HOLD_S: Final = 0.1

# Seconds after which the same wish is published again.
ASK_AGAIN_S: Final = 5.0

# Seconds after which an engine looks again, where all of its sequences wait for a larger context.
STALLED_POLL_S: Final = 1.0

# Seconds for which a sequence may wait for a larger context.
MAX_STALL_S: Final = 600.0


class ElasticContext:
    """The size of the context of one engine. All methods run on the engine's thread.

    Args:
        name: id of the model, for the log.
        context: the context.
        scheduler: of its sequences, with the accounting of its cells.
        offload: carries out what the accounting asks for.
        remaining: returns how many tokens the answer of a sequence may still have.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        scheduler: Scheduler,
        offload: KvOffload,
        remaining: Callable[[Sequence], int],
    ) -> None:
        self._name, self._context, self._scheduler, self._offload = name, context, scheduler, offload
        self._remaining = remaining
        self._asked = 0, 0
        # Whether the last wish was for cells without which sequences wait.
        self._is_awaiting = False
        # Sequences that waited at the last look, and until when prefixes are not evicted for new ones.
        self._seen = 0
        self._hold_until = -math.inf
        self._asked_at = self._look_at = -math.inf
        self._stalled_since = math.inf

    def poll(self, now: float) -> ContextWanted | None:
        """Return which context the engine needs, where it has a smaller one, and has not just said so.

        Also once it has enough of what it had said to need.

        Args:
            now: seconds of a monotonic clock.
        """
        cache = self._scheduler.cache
        waiting = len(self._scheduler.waiting)
        # A sequence that comes after others were admitted is a new one, however soon after the last look.
        self._seen = min(self._seen, waiting)
        may_lack = waiting or cache.free < FEW_CELLS or self._is_awaiting
        if cache.capacity >= self._context.length or not may_lack or (now < self._look_at and waiting <= self._seen):
            return None
        self._look_at, self._seen = now + LOOK_S, waiting
        needed, desired = self._demand()
        if self._is_awaiting and needed <= cache.capacity:
            # Nobody has to make room for it any longer: a request was cancelled, or its answer was short.
            self._is_awaiting = False
            return ContextWanted(needed, max(needed, desired))
        if desired <= cache.capacity:
            return None
        is_more = needed > max(self._asked[0], cache.capacity) or desired > max(self._asked[1], cache.capacity)
        if not is_more and now < self._asked_at + ASK_AGAIN_S:
            return None
        # With room to spare, so that the next tokens are not asked for one by one.
        self._asked, self._asked_at = (needed + NEEDED_AHEAD, desired + DESIRED_AHEAD), now
        self._is_awaiting = needed > cache.capacity
        self._hold_until = now + HOLD_S
        return ContextWanted(min(needed, self._context.length), min(desired, self._context.length))

    def _demand(self) -> tuple[int, int]:
        """Return the cells that the present sequences need, and those with which all prefixes stay, too."""
        scheduler = self._scheduler
        needed, desired = scheduler.cache.held(), scheduler.cache.used
        for sequence in (*scheduler.running, *scheduler.admissible):
            pending, remaining = sequence.pending, self._remaining(sequence)
            needed += pending + min(remaining, NEEDED_AHEAD)
            desired += pending + min(remaining, DESIRED_AHEAD)
        return needed, max(needed, desired)

    def may_get_more(self, now: float) -> bool:
        """Whether a wish may still be granted: until then, no prefix is evicted for a new sequence.

        Args:
            now: seconds of a monotonic clock.
        """
        return now < self._hold_until

    def is_given_up(self, now: float) -> bool:
        """Whether a sequence has waited in vain for a larger context. Called between steps.

        Args:
            now: seconds of a monotonic clock.
        """
        if not self._scheduler.is_stalled:
            self._stalled_since = math.inf
            return False
        self._stalled_since = min(self._stalled_since, now)
        return now >= self._stalled_since + MAX_STALL_S

    def misfits(self) -> list[Sequence]:
        """Return the waiting sequences that do not fit the context by themselves."""
        return [each for each in self._scheduler.waiting if len(each.tokens) > self._scheduler.cache.capacity]

    def resize(self, asked: Resize) -> ContextResized:
        """Give the context another size. Sequences go on; see ``Resize``.

        Raises:
            RuntimeError: there is no memory for a context any more, not even for the one that there was.
        """
        cache = self._scheduler.cache
        needed, _ = self._demand()
        # One that grows is as large as was asked for: what its sequences need may have changed since.
        fitting = (size for size in asked.sizes if size > cache.capacity or size >= max(needed, cache.held()))
        cells = min(next(fitting, cache.capacity), self._context.length)
        if self._context.has_short_windows and not self._context.has_short_windows_at(cells):
            # Slots that share cells have windows of their own, which may not fit.
            if cache.held():
                cells = cache.capacity
            else:
                self._evict_beyond(0, 0)
        if cells == cache.capacity:
            return ContextResized(cells, "its sequences need it")
        self._evict_beyond(cells, asked.keep_bytes)
        state = self._context.save_all() if cache.used else None
        failure = ""
        try:
            self._context.resize(cells)
        except UnusableModel as refused:
            failure = str(refused)
            logger.warning("%s: its context stays at %d tokens: %s", self._name, cache.capacity, failure)
        if state is not None and not self._context.restore_all(state):
            logger.warning("%s: its sequences are computed again: %s", self._name, self._context.failure())
            self._evict_beyond(0, 0)
        cache.capacity = self._context.cells
        lost = adapt_to_windows(cache, self._context)
        for sequence in [each for each in self._scheduler.running if each.slot in lost]:
            self._scheduler.preempt(sequence)
        self._offload.limit_parked(self._context.allocated_bytes // PARKED_PART)
        self._asked, self._asked_at, self._is_awaiting = (0, 0), -math.inf, False
        self._hold_until = -math.inf
        logger.debug("%s: its context has %d cells", self._name, cache.capacity)
        return ContextResized(cache.capacity, failure)

    def _evict_beyond(self, cells: int, keep_bytes: int) -> None:
        """Evict prefixes, then preempt sequences, until what is left fits ``cells``, and its state ``keep_bytes``."""
        cache = self._scheduler.cache
        self._offload.carry_out()
        while cache.used:
            size_bytes = self._context.all_states_bytes()
            # Each cell takes about as many bytes.
            fitting = cache.used if size_bytes <= keep_bytes else cache.used * keep_bytes // size_bytes
            if cache.used <= min(fitting, cells):
                return
            if not cache.make_room(cache.capacity - min(fitting, cells)):
                self._scheduler.preempt_youngest()
            self._offload.carry_out()
