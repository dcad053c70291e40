"""Serves models on this machine's devices in several ways, and prints a table of what came of it.

    .venv/bin/python scripts/gpu_check.py [MODEL.gguf MODEL.gguf]

scripts/gpu_check.sh runs it after an installation. Servers are started one after the other, with the models in files,
and asked over HTTP. Rows that need a device say "no device" where there is none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import tiny_experts
from checked_server import (
    MAX_START_S,
    MODELYARD,
    ROOT,
    CheckFailed,
    Server,
    completed,
    evictions,
    host_bytes,
    listed,
    loaded,
    planned,
    serving,
)

NAMES = ("first", "second")
MODELS = (".weights/smollm2-135m-instruct-q4_1.gguf", ".weights/gemma-3-270m-q4_k_m.gguf")
CONTEXT_TOKENS = 2048
# Layers of the first model that a split gives to devices, in all: fewer than the demo models have.
SPLIT_LAYERS = 8
# More layers than a model has: all of them, and none on the host.
ALL_LAYERS = 999
CLIENTS, REQUESTS = 4, 12
# How much room beside the larger model a budget leaves in which the other one does not fit.
BUDGET_MARGIN = 1.02
# On the host, models are predicted with the process of their engine and with their trial before they are loaded.
HOST_BUDGET_MARGIN = 1.1
# How far apart a prediction and what llama.cpp allocates may be: a part, or for shares of a few megabytes a size.
MAX_APART = 0.03
MAX_APART_BYTES = 4 << 20

Verdict = Literal["ok", "failed", "no device"]


class OutOfTime(Exception):
    """scripts/gpu_check.sh has ended the check, whose time is up."""


@dataclass(frozen=True)
class Row:
    """One row of the table: what was checked, how it ended, what was seen, and how long it took."""

    name: str
    verdict: Verdict
    seen: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Device:
    """An accelerator as llama.cpp reports it."""

    name: str
    free_bytes: int


@dataclass(frozen=True)
class Machine:
    """What the rows share.

    Attributes:
        folder: for files.
        models: the two models by name.
        devices: the accelerators, in the order of device_layers.
        loads: what was predicted of each load and what it took: its name, then both numbers by pool.
        needed: bytes that each model alone needs, on devices where there are any.
    """

    folder: Path
    models: Mapping[str, Path]
    devices: Sequence[Device] = ()
    loads: list[tuple[str, Mapping[str, int], Mapping[str, int]]] = field(default_factory=list)
    needed: dict[str, int] = field(default_factory=dict)


def config_text(
    models: Mapping[str, Path],
    *,
    budgets: Mapping[str, int] | None = None,
    device: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Return a configuration that serves models, which are loaded on demand.

    Args:
        models: their files, by name.
        budgets: bytes for all of them by device, and of the host by "host"; what is not there is bounded by what is
            free.
        device: further keys of [models.device], by the model's name.
    """
    sizes = {name: json.dumps(f"{size} B") for name, size in (budgets or {}).items()}
    lines = ["[memory]", *([f"budget = {sizes.pop('host')}"] if "host" in sizes else [])]
    lines += ["[memory.devices]", *(f"{json.dumps(name)} = {size}" for name, size in sizes.items()), ""]
    for name, path in models.items():
        lines.append(f"[[models]]\nmodel_id = {json.dumps(str(path))}\nalias = {json.dumps(name)}")
        keys = {"max_seq_len": CONTEXT_TOKENS, **(device or {}).get(name, {})}
        lines.append('load = "on-demand"\n[models.device]')
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        lines.append("")
    return "\n".join(lines)


def split_of(devices: int) -> int | list[str]:
    """Return device_layers that share SPLIT_LAYERS between up to two devices."""
    if devices > 1:
        return [f"0:{SPLIT_LAYERS // 2}", f"1:{SPLIT_LAYERS // 2}"]
    return SPLIT_LAYERS


def apart(predicted: int, measured: int) -> float:
    """Return by which part of what was measured a prediction is more."""
    return (predicted - measured) / measured if measured > 0 else float(predicted > 0)


def is_as_predicted(predicted: int, measured: int) -> bool:
    """Whether what was measured is close enough to what was predicted."""
    return abs(apart(predicted, measured)) <= MAX_APART or abs(predicted - measured) <= MAX_APART_BYTES


def compared(predicted: int, measured: int) -> str:
    """Return two numbers of bytes and how far they are apart."""
    by = f"{apart(predicted, measured):+.1%}" if measured > 0 else "nothing measured"
    return f"predicted {predicted / 1e6:,.0f} MB, measured {measured / 1e6:,.0f} MB ({by})"


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Return bytes by pool as text."""
    return ", ".join(f"{size / 1e6:,.0f} MB of {pool}" for pool, size in sizes.items())


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text with columns."""
    cells = [("check", "result", "seconds", "seen"), *((r.name, r.verdict, f"{r.seconds:.1f}", r.seen) for r in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    return "\n".join("  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3])) for row in cells)


def checked(name: str, check: Callable[[], str | tuple[Verdict, str]]) -> Row:
    """Run a check, which returns what it saw or raises; the row about it."""
    started = time.monotonic()
    verdict: Verdict
    try:
        found = check()
        verdict, seen = found if isinstance(found, tuple) else ("ok", found)
    except (CheckFailed, OSError, subprocess.SubprocessError, ValueError, KeyError) as failure:
        verdict, seen = "failed", str(failure) or type(failure).__name__
    row = Row(name, verdict, seen, time.monotonic() - started)
    print(f"{row.name}: {row.verdict}", file=sys.stderr, flush=True)
    return row


# --- llama.cpp


def llama_report() -> dict[str, Any]:
    """Return what llama.cpp reports in a process of its own: backends, devices and their memory."""
    command = [sys.executable, "-P", "-m", "modelyard.engine.llama.report"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_START_S, check=True, cwd=ROOT)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def accelerators() -> list[Device]:
    """Return the devices that layers can be given to, in the order of device_layers."""
    report = llama_report()
    free_bytes = {each["name"]: each["free_bytes"] for each in report["devices"]}
    return [Device(name, free_bytes[name]) for name in report["accelerators"]]


# --- the rows


def observed(machine: Machine, server: Server, model: str, load: str) -> str:
    """Have a model answer, note what was predicted of its load and what it took, and return where it is."""
    predicted = planned(server, model)
    completed(server, model)
    found = listed(server, model)
    machine.loads.append((load, predicted, found.get("device_bytes", {})))
    return str(found.get("placement", "host"))


def doctor_row() -> tuple[Verdict, str]:
    """What doctor says of accelerators."""
    done = subprocess.run([*MODELYARD, "doctor", "--json"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    found = findings["devices"]
    if findings["llama_cpp"]["verdict"] == "problem":
        raise CheckFailed(findings["llama_cpp"]["value"])
    seen = "; ".join(filter(None, (*found["value"].splitlines(), found["advice"])))
    return "ok" if found["verdict"] == "ok" else "failed", seen


def fitting_row(machine: Machine) -> str:
    """Two models that fit together: both are loaded, on devices where there are any, and stay."""
    with serving(machine.folder, config_text(machine.models)) as server:
        before = host_bytes(server.process.pid)
        places = {name: observed(machine, server, name, name) for name in NAMES}
        for load, predicted, _ in machine.loads:
            of_devices = sum(size for pool, size in predicted.items() if pool != "host")
            machine.needed[load] = of_devices or predicted["host"]
        if loaded(server) != list(NAMES):
            raise CheckFailed(f"only these are loaded: {', '.join(loaded(server)) or 'none'}")
        if machine.devices:
            free_bytes = {device.name: device.free_bytes for device in accelerators()}
            less = {each.name: each.free_bytes - free_bytes[each.name] for each in machine.devices}
            seen = f"less is free, with what drivers take: {sizes_text(less)}"
        else:
            grown = host_bytes(server.process.pid) - before
            predicted_bytes = sum(predicted["host"] for _, predicted, _ in machine.loads)
            # The host's memory holds more than models: their processes, and what the system keeps of files.
            seen = f"with processes and files: {compared(predicted_bytes, grown)}"
    return f"{'; '.join(f'{name}: {place}' for name, place in places.items())}; {seen}"


def crowded(machine: Machine) -> str:
    """Return a configuration with room for one model at a time."""
    if not machine.needed:
        raise CheckFailed("what the models need is not known")
    needed = max(machine.needed.values())
    if not machine.devices:
        return config_text(machine.models, budgets={"host": round(needed * HOST_BUDGET_MARGIN)})
    size = round(needed * BUDGET_MARGIN)
    # On the first device whole: otherwise the second model is put elsewhere, which needs no eviction.
    first = machine.devices[0].name
    whole = {"devices": [first], "n_gpu_layers": ALL_LAYERS}
    return config_text(machine.models, budgets={first: size}, device=dict.fromkeys(NAMES, whole))


def swapping_row(machine: Machine) -> str:
    """Two models that do not fit together: each takes the other's place, and answers the same again."""
    with serving(machine.folder, crowded(machine)) as server:
        answers = []
        for name in (*NAMES, NAMES[0]):
            answers.append(completed(server, name))
            if loaded(server) != [name]:
                raise CheckFailed(f"after an answer of {name}, these are loaded: {', '.join(loaded(server))}")
    if answers[0] != answers[2]:
        raise CheckFailed("the first model answers otherwise after it was loaded again")
    return "each was loaded for its answer, and the first one answered the same again"


def split_row(machine: Machine) -> tuple[Verdict, str]:
    """Some layers of a model on a device or on two, the others on the host."""
    if not machine.devices:
        return "no device", ""
    name, layers = NAMES[0], split_of(len(machine.devices))
    only = {name: machine.models[name]}
    with serving(machine.folder, config_text(only, device={name: {"device_layers": layers}})) as server:
        place = observed(machine, server, name, "split")
    taken = machine.loads[-1][2]
    if not all(taken.get(each.name, 0) for each in machine.devices[:2]):
        raise CheckFailed(f"layers were given to devices that hold nothing: {dict(taken)}")
    return "ok", f"{place}: {sizes_text(taken)}"


def experts_row(machine: Machine) -> tuple[Verdict, str]:
    """A model with experts twice: whole on a device, and there without the experts, which are on the host."""
    if not machine.devices:
        return "no device", ""
    file = tiny_experts.make(machine.models[NAMES[0]], machine.folder / "tiny-experts.gguf")
    first = machine.devices[0].name
    device = {
        "whole": {"devices": [first], "n_gpu_layers": ALL_LAYERS},
        "no-experts": {"devices": [first], "n_cpu_moe": tiny_experts.LAYERS},
    }
    with serving(machine.folder, config_text(dict.fromkeys(device, file), device=device)) as server:
        place = [observed(machine, server, name, name) for name in device][-1]
    whole, without = (sum(taken.values()) for _, _, taken in machine.loads[-2:])
    if whole - without < tiny_experts.EXPERT_BYTES // 2:
        raise CheckFailed(f"the experts take no less of {first} than before: {whole:,} and {without:,} bytes")
    return "ok", f"{place}: {without / 1e6:,.0f} MB of it, {whole / 1e6:,.0f} MB with its experts"


def load_row(machine: Machine) -> str:
    """Two models that do not fit together, and requests for both at the same time."""
    with serving(machine.folder, crowded(machine)) as server, ThreadPoolExecutor(CLIENTS) as clients:
        started = time.monotonic()
        asks = [clients.submit(completed, server, NAMES[number % 2]) for number in range(REQUESTS)]
        for ask in asks:
            ask.result()
        seconds = time.monotonic() - started
        swaps = evictions(server)
    return f"{REQUESTS} requests of {CLIENTS} clients, all answered in {seconds:.1f} s, with {swaps} evictions"


def memory_row(machine: Machine) -> tuple[Verdict, str]:
    """All loads on devices: what was predicted of each before it, and what llama.cpp allocated."""
    if not machine.devices:
        return "no device", ""
    compared_loads, is_close = [], True
    for load, predicted, measured in machine.loads:
        for pool in sorted(predicted.keys() | measured.keys()):
            if pool != "host":
                pair = predicted.get(pool, 0), measured.get(pool, 0)
                compared_loads.append(f"{load} on {pool}: {compared(*pair)}")
                is_close = is_close and is_as_predicted(*pair)
    if not compared_loads:
        raise CheckFailed("nothing was loaded on a device with memory of its own")
    seen = "; ".join(compared_loads)
    return ("ok" if is_close else "failed"), seen


ROWS: Mapping[str, Callable[[Machine], str | tuple[Verdict, str]]] = {
    "two models that fit": fitting_row,
    "two that do not fit": swapping_row,
    "a split": split_row,
    "experts on the host": experts_row,
    "swap under load": load_row,
    "predicted, measured": memory_row,
}


def add_rows(rows: list[Row], models: Mapping[str, Path]) -> None:
    """Run all checks, one after the other, and add a row for each; none behind a llama.cpp that cannot be loaded.

    Raises:
        OutOfTime: the time was up in a check.
    """
    report: dict[str, Any] = {}

    def built() -> str:
        report.update(llama_report())
        missing = "".join(f"; {each['name']} cannot be loaded: {each['reason']}" for each in report["missing"])
        return f"llama.cpp {report['version']} with {', '.join(report['backends'])}{missing}"

    rows.append(checked("build", built))
    rows.append(checked("doctor", doctor_row))
    if not report:
        return
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder), models, accelerators())
        for name, check in ROWS.items():
            rows.append(checked(name, lambda check=check: check(machine)))


def _out_of_time(signal_number: int, _: FrameType | None) -> None:
    # timeout sends it twice: to this process, and to its group.
    signal.signal(signal_number, signal.SIG_IGN)
    raise OutOfTime


def main(arguments: Sequence[str]) -> int:
    """Run all checks and print the table; the exit status."""
    models = [Path(each).resolve() for each in arguments] or [ROOT / each for each in MODELS]
    if len(models) != len(NAMES) or not all(path.exists() for path in models):
        print(f"Name two GGUF files that exist. These were named: {', '.join(map(str, models))}")
        return 2
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _out_of_time)
    rows: list[Row] = []
    try:
        add_rows(rows, dict(zip(NAMES, models, strict=True)))
    except OutOfTime:
        name = ("build", "doctor", *ROWS)[len(rows)]
        rows.append(Row(name, "failed", "the time was up; the rows behind it are missing"))
    print(table(rows))
    print(f"\n{time.monotonic() - started:.0f} seconds on {os.cpu_count()} cores")
    return 1 if any(row.verdict == "failed" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
