"""Finds accelerators that no configured model may use, and budgets of devices that cannot be kept. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.config import Config, effective_cpu
from modelyard.config.model import Device
from modelyard.doctor.finding import Finding
from modelyard.doctor.llama import LlamaFacts

_LABEL = "Use of devices"


def unused_devices(config: Config, accelerators: Sequence[str]) -> tuple[str, ...]:
    """Return the accelerators that no model of ``config`` may use; () for a configuration without models.

    ``accelerators`` are their names, in the order of ``device_layers``.
    """
    if not config.models:
        return ()
    used: set[str] = set()
    if not effective_cpu(config.models):
        used.update(*(_used(model.device, accelerators) for model in config.models if not model.is_remote))
    return tuple(name for name in accelerators if name.lower() not in used)


def _used(device: Device, accelerators: Sequence[str]) -> set[str]:
    """Return the names of the devices that a model may use, in lower case."""
    named = [name.lower() for name in device.devices or accelerators]
    # The host, which may be named, too, is no accelerator.
    overrides = {place.lower() for _, place in device.tensor_overrides}
    layers = device.n_gpu_layers if device.device_layers is None else sum(device.device_layers)
    if layers == 0:
        return overrides
    if device.split_mode == "none":
        return {*named[device.main_gpu or 0 :][:1], *overrides}
    parts = device.tensor_split if device.device_layers is None else device.device_layers
    if any(parts):
        named = [name for name, part in zip(named, parts, strict=False) if part]
    return {*named, *overrides}


def check_device_use(
    llama: LlamaFacts, unused: Sequence[str], budgets: Sequence[tuple[str, int | float]]
) -> Iterator[Finding]:
    """Yield what the configuration leaves unused of accelerators, and promises of them that is not there.

    Args:
        llama: what llama.cpp reports.
        unused: accelerators that no model may use.
        budgets: configured budgets of devices, by their names or numbers: bytes, or a float for a part of the memory.
    """
    if unused:
        names = " and ".join(unused)
        advice = (
            "They are idle while other devices may be full. Name them in devices, device_layers or tensor_split of "
            "[models.device], or leave these keys and cpu out: then models use all."
        )
        yield Finding("unused_devices", _LABEL, f"no model may use {names}", "note", advice, {"unused": list(unused)})
    by_key = _by_key(llama)
    for key, budget in budgets:
        device = by_key.get(key.strip().lower())
        if llama.problem:
            # Which devices there are is not known.
            continue
        if device is None:
            advice = "Such a configuration is refused at the start. The devices are listed under Accelerators."
            value = f"[memory.devices] names '{key}', which is not an accelerator of this machine"
            yield Finding("budget_of_unknown_device", _LABEL, value, "note", advice, {"device": key})
        elif not isinstance(budget, float) and 0 < device["total_bytes"] < budget:
            has = device["total_bytes"]
            value = f"the budget of {device['name']} is {budget / 1e9:.1f} GB, and it has {has / 1e9:.1f} GB in all"
            advice = 'Models get what is there at most. A part, such as "90%", fits devices of any size.'
            known = {"device": device["name"], "budget_bytes": budget, "total_bytes": has}
            yield Finding("budget_above_device", _LABEL, value, "note", advice, known)


def _by_key(llama: LlamaFacts) -> dict[str, Mapping[str, Any]]:
    """Return the accelerators by their names in lower case, and by their numbers."""
    by_name = {device["name"]: device for device in llama.devices}
    found = [by_name[name] for name in llama.accelerators if name in by_name]
    numbered = {str(number): device for number, device in enumerate(found)}
    return numbered | {device["name"].lower(): device for device in found}
