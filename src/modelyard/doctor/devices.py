"""Checks which accelerators llama.cpp uses, which it leaves unused, and what builds it for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.doctor.finding import Finding
from modelyard.doctor.llama import LlamaFacts
from modelyard.doctor.rebuild import rebuild
from modelyard.system.llama_builds import BACKENDS, GGML_NAMES, LABELS, Backend, BuildFacts, choose, serves


def built_for(llama: LlamaFacts) -> tuple[Backend, ...]:
    """Return the backends of accelerators that llama.cpp was built with, also those that cannot be loaded here."""
    loaded = {GGML_NAMES[name] for name in llama.backends if name in GGML_NAMES}
    missing = {backend["name"] for backend in llama.missing}
    return tuple(backend for backend in BACKENDS if backend in loaded | missing)


def check_devices(
    llama: LlamaFacts, build: BuildFacts, version: str, *, is_made_by_make: bool, without_amx: bool
) -> Finding:
    """Return which accelerators llama.cpp uses.

    Args:
        llama: what llama.cpp reports.
        build: what the machine has.
        version: of llama-cpp-python; "" where it is not known.
        is_made_by_make: whether the environment is one that ``make install`` made.
        without_amx: whether a build is to leave out kernels for AMX.
    """
    built = built_for(llama)
    by_name = {device["name"]: device for device in llama.devices}
    found = [by_name[name] for name in llama.accelerators if name in by_name]
    rest = [f"also seen: {_device(device)}" for device in llama.devices if device not in found]
    unused = [maker for maker in sorted(build.gpus) if not any(serves(backend, maker) for backend in built)]
    known = {
        "built_for": [LABELS[backend] for backend in built],
        "devices": [dict(device) for device in llama.devices],
        "missing": [dict(backend) for backend in llama.missing],
        "can_offload": llama.can_offload,
        "present": sorted(build.gpus),
        "unused": unused,
    }
    label = "Accelerators"
    if llama.problem:
        return Finding("devices", label, "not known, as llama.cpp cannot be loaded", facts=known)
    names = " and ".join(LABELS[backend] for backend in built)
    if found:
        # The devices of a library that GGML_BACKEND_PATH names are there without a build for them.
        built_text = names or "the CPU alone, and uses devices of a further backend"
        lines = [f"llama.cpp was built for {built_text}", *_numbered(found), *rest, *map(_unused, unused)]
        lines += [f"cannot be loaded: {_label(backend['name'])} ({backend['reason']})" for backend in llama.missing]
        return Finding("devices", label, "\n".join(lines), facts=known)
    if llama.missing:
        why = "; ".join(backend["reason"] for backend in llama.missing)
        parts = " and ".join(_label(backend["name"]) for backend in llama.missing)
        value = "\n".join((f"llama.cpp was built for {parts}, which cannot be loaded: {why}", *rest))
        advice = (
            "The CPU computes. Install the driver and the libraries that it needs, or give the GPU to this container."
        )
        return Finding("devices", label, value, "note", advice, known)
    if built:
        value = "\n".join((f"llama.cpp was built for {names}, but finds no device", *rest))
        return Finding("devices", label, value, "note", "Check the driver. Until then the CPU computes.", known)
    choice = choose(build)
    if choice.backend != "cpu" or choice.lacks:
        lack = choice.lacks[0] if choice.lacks and choice.backend == "cpu" else None
        backend = choice.backend if lack is None else lack.backend
        present = " and ".join(f"a GPU of {maker}" for maker in sorted(build.gpus | build.without_driver))
        value = "\n".join((f"{present} is there, but llama.cpp was built for the CPU alone", *rest))
        reasons = [] if lack is None else [str(each) for each in choice.lacks]
        advised = "\n".join((*reasons, f"Build llama.cpp for {LABELS[backend]}."))
        by_pip = rebuild(backend, build, version, without_amx=without_amx)
        again = f"MODELYARD_BACKEND={backend} make install" if is_made_by_make else by_pip
        command = " && ".join(filter(None, ("" if lack is None else lack.command, again)))
        return Finding("devices", label, value, "note", advised, known, command)
    value = "none; llama.cpp was built for the CPU alone, which computes all layers"
    return Finding("devices", label, "\n".join((value, *rest)), facts=known)


def _label(name: str) -> str:
    """Return what readers call a backend; one that is for no device has no other name than its file's."""
    return next((LABELS[backend] for backend in BACKENDS if backend == name), name)


def _numbered(devices: list[Mapping[str, Any]]) -> list[str]:
    return [f"{number}: {_device(device)}" for number, device in enumerate(devices)]


def _unused(maker: str) -> str:
    return f"not used: a GPU of {maker}"


def _device(device: Mapping[str, Any]) -> str:
    name = f"{device['name']} ({device['description']})" if device["description"] else str(device["name"])
    return f"{name}, {device['free_bytes'] / 1e9:.1f} of {device['total_bytes'] / 1e9:.1f} GB free"
