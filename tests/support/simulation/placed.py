"""Models in placements of their own, and a machine that has devices: for tests that name one situation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.effects import Effect, Free, Grant, StartLoad
from modelyard.yard.residency.events import EngineLoaded, EngineLoadFailed, RequestArrived, RequestEnded
from modelyard.yard.residency.waiting import RequestId
from support.simulation.script import Script

FAST, SLOW = 0.001, 0.021
"""Seconds a token: a thousand tokens take twenty seconds longer in the slower placement."""

LONG_S = 60.0
"""The load of a model that is not worth being drained."""


def on(pool: str, name: str, size: int = 80, token_s: float = FAST, key: str | None = None) -> Footprint:
    """A model that is whole on one device."""
    shares = (DeviceShare(pool, key or name, size - 20, 20),)
    return Footprint(key or name, 0, 1, devices=shares, placement=Placement(devices=(pool,)), token_s=token_s)


def host(name: str, size: int = 80, token_s: float = SLOW) -> Footprint:
    """A model that is on the host alone."""
    return Footprint(name, size - 20, 20, placement=ON_HOST, token_s=token_s)


def split(name: str, first: int, second: int, token_s: float = 0.002) -> Footprint:
    """A model that takes ``first`` bytes of one device and ``second`` of another."""
    shares = (DeviceShare("g0", name, first, 0), DeviceShare("g1", name, second, 0))
    return Footprint(name, 0, 1, devices=shares, placement=Placement(devices=("g0", "g1")), token_s=token_s)


def yard(*names: str, devices: Mapping[str, int] | None = None, fit: float = 5.0, **choices: Any) -> Script:
    """Models that may be on the device g0 and on the host, but for those of which ``choices`` say otherwise."""
    policies = {name: choices.pop(f"{name}_policy") for name in names if f"{name}_policy" in choices}
    plain = {name: (on("g0", name), host(name)) for name in names}
    return Script(*names, fit=fit, devices=devices or {"g0": 100}, footprints=plain | choices, **policies)


def load(script: Script, name: str, request: int, choice: Footprint, load_s: float = 2.0) -> None:
    """A request for a model, whose load takes ``load_s``."""
    assert script(RequestArrived(name, RequestId(request))) == [StartLoad(name, choice.placement)]
    script.wait(load_s)
    assert script(EngineLoaded(name)) == [Grant(name, RequestId(request))]


def idle(script: Script, name: str, choice: Footprint, load_s: float = 2.0) -> None:
    """A model that was loaded for a request, which is over."""
    load(script, name, 900, choice, load_s)
    script(RequestEnded(name, RequestId(900)))


def starts(effects: Sequence[Effect]) -> list[tuple[str, Placement]]:
    """Which models are loaded, and where."""
    return [(effect.model, effect.placement) for effect in effects if isinstance(effect, StartLoad)]


def reasons(effects: Sequence[Effect]) -> list[tuple[str, str]]:
    """Which models are freed, and why."""
    return [(effect.model, effect.reason) for effect in effects if isinstance(effect, Free)]


def lacks(name: str, reason: str = "out of memory") -> EngineLoadFailed:
    """A load fails, because a device does not have what was predicted."""
    return EngineLoadFailed(name, reason, lacks_device_memory=True)
