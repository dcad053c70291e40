"""What was in memory when, and why that changed: intervals of each model, of the last hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from modelyard.system.quantities import duration_text
from modelyard.yard.residency.effects import Effect, Free
from modelyard.yard.residency.state import LoadState, ModelState, Residency

KEPT_S: Final = 3600.0
MAX_INTERVALS: Final = 5_000
"""Intervals of all models together that ended; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A time in which the load state of a model, and its memory, did not change.

    Attributes:
        model: its id.
        load_state: where its weights were.
        began: seconds of the clock of the residency.
        ended: likewise; None: it goes on.
        bytes: memory that the model took, by pool; of a model that loads, what its load was expected to take.
        reason: why it began, as a sentence without its full stop; "" where the state says as much.
        cause: a word for it: a reason of ``effects.Free``, "asked" for a request or a load, "loaded", "resized",
            "failed" or "died"; "" where none of them is it.
    """

    model: str
    load_state: LoadState
    began: float
    ended: float | None = None
    bytes: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    cause: str = ""


class ResidencyHistory:
    """The intervals of all models of one yard. Use it on the yard's event loop."""

    def __init__(self) -> None:
        self._open: dict[str, Interval] = {}
        self._ended: deque[Interval] = deque()
        # Why models are being freed, which is the reason of the state after it, too.
        self._frees: dict[str, Free] = {}

    def record(self, before: Residency, after: Residency, changed: AbstractSet[str], effects: Iterable[Effect]) -> None:
        """Record a step of the residency.

        Args:
            before, after: the states before and after it.
            changed: the models whose state or footprint differs in them, or that one of them does not have.
            effects: what it had done.
        """
        self._frees |= {effect.model: effect for effect in effects if isinstance(effect, Free)}
        for name in changed:
            old, new = before.models.get(name), after.models.get(name)
            if new is None:
                self._close(name, after.now)
                self._frees.pop(name, None)
                continue
            weights_alone = {name} if new.has_only_weights else set()
            taken = after.taken([name], weights_alone) if new.is_resident else {}
            present = self._open.get(name)
            if present is not None and present.load_state is new.load_state and present.bytes == taken:
                continue
            if present is None and new.load_state is LoadState.UNLOADED:
                continue
            cause, reason = self._why(name, old, new, after.now)
            self._close(name, after.now)
            self._open[name] = Interval(new.policy.name, new.load_state, after.now, None, dict(taken), reason, cause)

    def intervals(self, now: float, seconds: float) -> list[Interval]:
        """Return the intervals of the last ``seconds`` before ``now``, in the order in which they began."""
        self._drop_old(now)
        every = [*self._ended, *self._open.values()]
        recent = (each for each in every if each.ended is None or each.ended >= now - seconds)
        return sorted(recent, key=lambda each: each.began)

    def _close(self, name: str, now: float) -> None:
        present = self._open.pop(name, None)
        if present is not None:
            self._ended.append(replace(present, ended=now))
            self._drop_old(now)

    def _drop_old(self, now: float) -> None:
        while self._ended and (len(self._ended) > MAX_INTERVALS or (self._ended[0].ended or 0.0) < now - KEPT_S):
            self._ended.popleft()

    def _why(self, name: str, old: ModelState | None, new: ModelState, now: float) -> tuple[str, str]:
        """Return the cause and the reason of the present state of a model, whose last interval has not ended yet."""
        match new.load_state:
            case LoadState.FAILED:
                return "failed", new.reason
            case LoadState.SIZING | LoadState.LOADING:
                self._frees.pop(name, None)
                return "asked", _load_reason(new)
            case LoadState.LOADED:
                if old is not None and old.load_state is LoadState.LOADED:
                    return "resized", "its context has another size"
                last = self._open.get(name)
                if last is None or last.load_state is not LoadState.LOADING:
                    return "loaded", ""
                # Not ``load_s``, which leaves out loads of parked weights.
                return "loaded", f"its load took {duration_text(now - last.began)}"
            case LoadState.FREEING if new.was_serving:
                self._frees.pop(name, None)
                return "died", new.last_death
            case LoadState.FREEING | LoadState.UNLOADED | LoadState.PARKED:
                free = self._frees.get(name)
                if free is not None:
                    return free.reason, free.why
                return ("died", new.last_death) if new.last_death else ("", "")


def _load_reason(model: ModelState) -> str:
    if model.only_moves:
        return "a faster placement has room"
    requests = sum(waiter.is_request for waiter in model.queue)
    if not requests:
        return "a load was asked for"
    return "a request waits for it" if requests == 1 else f"{requests} requests wait for it"
