"""A machine that is told event by event what happens: for tests that name one situation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.residency import step
from modelyard.yard.residency.effects import Effect, Free, Grant, Reject, StartLoad
from modelyard.yard.residency.events import (
    EngineFreed,
    EngineLoaded,
    RequestArrived,
    RequestEnded,
    RequestSuspended,
    ResidencyEvent,
    Sized,
    Tick,
)
from modelyard.yard.residency.policy import ModelPolicy, WaitPolicy
from modelyard.yard.residency.state import LoadState, ModelState, Residency
from modelyard.yard.residency.waiting import RequestId

POLICY = WaitPolicy(max_wait_s=100.0, min_residency_s=10.0, residency_per_load=4.0, drain_s=2.0, patience_s=30.0)
BIG = 100


class Script:
    """A machine whose models take BIG bytes each, and that fits ``fit`` of them.

    Args:
        names: of its models.
        max_requests: of each model.
        is_sized: their files were looked at already.
        footprints: of models that are of another size; several are those of their placements, the fastest first.
        devices: budgets of devices, by their names.
        traits: of each model, by name; what is not given is plain.
    """

    def __init__(
        self,
        *names: str,
        fit: float = 1.0,
        max_requests: int = 8,
        is_sized: bool = True,
        footprints: Mapping[str, Footprint | Sequence[Footprint]] | None = None,
        devices: Mapping[str, int] | None = None,
        **traits: Mapping[str, Any],
    ) -> None:
        all_traits = {name: ModelPolicy(name, max_requests, **traits.get(name, {})) for name in names}
        self.state = Residency.of(all_traits, int(fit * BIG), POLICY, devices or {})
        given = dict(footprints or {})
        self.choices = {name: _several(given.get(name, Footprint(name, 60, 40))) for name in names}
        self.footprints = {name: choices[0] for name, choices in self.choices.items()}
        if is_sized:
            for name in names:
                self.size(name)

    def __call__(self, event: ResidencyEvent) -> list[Effect]:
        """Feed an event; the effects."""
        self.state, effects = step(self.state, event)
        return effects

    def size(self, name: str) -> list[Effect]:
        """The files of a model were read; the effects."""
        first, *others = self.choices[name]
        return self(Sized(name, first, tuple(others)))

    def model(self, name: str) -> ModelState:
        return self.state.models[name]

    def load_state(self, name: str) -> LoadState:
        return self.state.models[name].load_state

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass: a Tick whenever one is due, and one at the end; all their effects."""
        end, effects = self.state.now + seconds, []
        while self.state.due_at < end:
            effects += self(Tick(self.state.due_at))
        return effects + self(Tick(end))

    def load(self, name: str, request: int, choice: Footprint | None = None) -> None:
        """A request for a model that is not there, and its load, in the placement of ``choice``; else the fastest."""
        placement = (choice or self.choices[name][0]).placement
        assert self(RequestArrived(name, RequestId(request))) == [StartLoad(name, placement)]
        assert self(EngineLoaded(name)) == [Grant(name, RequestId(request))]

    def idle(self, name: str, request: int = 900, choice: Footprint | None = None) -> None:
        """A model that is there, and that nobody uses."""
        self.load(name, request, choice)
        assert self(RequestEnded(name, RequestId(request))) == []

    def suspended(self, name: str, kept_bytes: int = 0, prefix_bytes: int = 0) -> list[Effect]:
        """A model that is being freed suspends all its leases and is gone; all effects."""
        effects = []
        for request in list(self.model(name).leases):
            effects += self(RequestSuspended(name, request, kept_bytes))
        return effects + self(EngineFreed(name, prefix_bytes))


def _several(footprints: Footprint | Sequence[Footprint]) -> tuple[Footprint, ...]:
    return (footprints,) if isinstance(footprints, Footprint) else tuple(footprints)


def frees(effects: Sequence[Effect]) -> list[tuple[str, bool]]:
    """Which models are freed, and whether their leases are suspended."""
    return [(effect.model, effect.suspends) for effect in effects if isinstance(effect, Free)]


def refusals(effects: Sequence[Effect]) -> list[tuple[RequestId, type[Exception]]]:
    """Who is refused, and how."""
    return [(effect.request, type(effect.error)) for effect in effects if isinstance(effect, Reject)]
