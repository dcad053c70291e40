"""A server with scripted models on devices: CUDA0 and CUDA1, which a test makes up, with a budget of 100 MB each.

Two models are configured. ``small`` takes 40 MB of CUDA0; ``large`` is split over both devices, or on the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from modelyard.config import validate_config
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.placement import ON_HOST, DeviceBytes, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.events import DeviceBudgetsChanged, Sized
from support.gguf_writer import tiny_model, write
from support.scripted_engines import CONTEXT_BYTES, MODEL_BYTES, ScriptedEngines, profile_of
from support.server import RunningServer, serving

MB = 1_000_000
BUDGETS = {"CUDA0": 100 * MB, "CUDA1": 100 * MB}


def footprint(name: str, *, token_s: float, placement: Placement, **devices: int) -> Footprint:
    """What a model takes of the host, and of ``devices`` in MB, half of it for weights."""
    shares = tuple(DeviceShare(device, name, size * MB // 2, size * MB // 2) for device, size in devices.items())
    return Footprint(name, MODEL_BYTES, CONTEXT_BYTES, devices=shares, placement=placement, token_s=token_s)


SMALL = footprint("small", token_s=0.01, placement=Placement(("CUDA0",)), CUDA0=40)
LARGE = (
    footprint("large", token_s=0.02, placement=Placement(("CUDA0", "CUDA1"), split=(3, 1)), CUDA0=75, CUDA1=25),
    footprint("large", token_s=10.0, placement=ON_HOST),
)


def profile(name: str) -> ModelProfile:
    """What an engine measures: of ``small`` as predicted; of ``large``, which may be anywhere, nothing by device."""
    if name != "small":
        return profile_of(name)
    (share,) = SMALL.devices
    on_device = DeviceBytes(weights=share.weights_bytes, kv=share.context_bytes)
    on_host = DeviceBytes(weights=MODEL_BYTES, kv=CONTEXT_BYTES)
    return replace(profile_of(name), device_bytes=((share.pool, on_device), ("host", on_host)))


@contextlib.contextmanager
def serving_on_devices(folder: Path, *, loads: bool = True) -> Iterator[tuple[RunningServer, ScriptedEngines]]:
    """Serve both models, unloaded; where not ``loads``, each load waits for the test."""
    names = ("small", "large")
    for name in names:
        write(folder / f"{name}.gguf", tiny_model())
    models = [{"model_id": f"./{name}.gguf", "alias": name, "load": "on-demand"} for name in names]
    config = validate_config({"models": models}, source="test", base=folder)
    engines = ScriptedEngines(loads=loads, answer=lambda _: ["Hello"], profile=profile)
    try:
        with serving(config, engines.make_handle) as server:
            server.read(lambda: _add_devices(server))
            yield server, engines
    finally:
        assert engines.end()


def _add_devices(server: RunningServer) -> None:
    controller = server.yard.controller
    controller.feed(DeviceBudgetsChanged(BUDGETS))
    controller.feed(Sized("small", SMALL))
    controller.feed(Sized("large", LARGE[0], LARGE[1:]))
