"""Engines that die, in tests that name one situation."""

from __future__ import annotations

from modelyard.yard.residency.effects import Blame, Grant
from modelyard.yard.residency.events import (
    EngineDied,
    EngineDying,
    EngineLoaded,
    RequestArrived,
    RequestSuspended,
)
from support.simulation.script import Script


def serving(*requests, names=("a",), **options):
    """A model a that serves ``requests``."""
    script = Script(*names, **options)
    script.load("a", requests[0])
    for request in requests[1:]:
        assert script(RequestArrived("a", request)) == [Grant("a", request)]
    return script


def dying(script, *active):
    """The engine of a begins to die; ``active`` are requests, the content of each is its number."""
    return script(EngineDying("a", "segfault", tuple((request, f"content {request}") for request in active)))


def dies(script, *active):
    """The engine of a dies, and what it served is suspended; all effects."""
    effects = dying(script, *active)
    for request in list(script.model("a").leases):
        effects += script(RequestSuspended("a", request, 0))
    return effects + script(EngineDied("a", "segfault"))


def dies_and_is_back(script, *active):
    """The engine dies, and the next one serves; all effects."""
    return dies(script, *active) + script(EngineLoaded("a"))


def blames(effects):
    return [(effect.request, type(effect.error)) for effect in effects if isinstance(effect, Blame)]
