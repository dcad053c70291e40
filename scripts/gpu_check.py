"""Serves two models on this machine's devices in several ways, and prints a table of what came of it.

    .venv/bin/python scripts/gpu_check.py [MODEL.gguf MODEL.gguf]

scripts/gpu_check.sh runs it after an installation. Servers are started one after the other, with the models in files,
and asked over HTTP; the free memory of devices is what llama.cpp reports in a process of its own. Rows that need a
device say "no device" where there is none.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("first", "second")
MODELS = (".weights/smollm2-135m-instruct-q4_1.gguf", ".weights/gemma-3-270m-q4_k_m.gguf")
MODELYARD = (sys.executable, "-P", "-m", "modelyard")
CONTEXT_TOKENS = 2048
# Layers of the first model that a split gives to devices, in all: fewer than the demo models have.
SPLIT_LAYERS = 8
PROMPT = "Count from one to ten."
MAX_START_S = 120.0
MAX_STOP_S = 20.0
MAX_ANSWER_S = 60.0
CLIENTS, REQUESTS = 4, 12
# How much room beside the larger model a budget leaves in which the other one does not fit.
BUDGET_MARGIN = 1.02

Verdict = Literal["ok", "failed", "no device", "seen"]


class CheckFailed(Exception):
    """A row failed; the message says how."""


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
class Server:
    """A running server: its address and the process."""

    url: str
    process: subprocess.Popen[bytes]


def config_text(models: Sequence[Path], *, budget_bytes: int = 0, layers: str = "") -> str:
    """Return a configuration that serves models under ``NAMES``.

    Args:
        models: their files.
        budget_bytes: memory for all of them; 0 for as much as is free.
        layers: device_layers of the first one, in TOML; "" for all layers on devices.
    """
    lines = [f"[memory]\nbudget = {json.dumps(f'{budget_bytes} B')}\n"] if budget_bytes else []
    for name, path in zip(NAMES, models, strict=False):
        lines.append(f"[[models]]\nmodel_id = {json.dumps(str(path))}\nalias = {json.dumps(name)}")
        lines.append(f'load = "on-demand"\ndevice.max_seq_len = {CONTEXT_TOKENS}')
        if layers and name == NAMES[0]:
            lines.append(f"device.device_layers = {layers}")
        lines.append("")
    return "\n".join(lines)


def split_of(devices: int) -> str:
    """Return device_layers, in TOML, that shares SPLIT_LAYERS between up to two devices."""
    if devices > 1:
        return f'["0:{SPLIT_LAYERS // 2}", "1:{SPLIT_LAYERS // 2}"]'
    return str(SPLIT_LAYERS)


def compared(predicted: int, measured: int) -> str:
    """Return two numbers of bytes and how far they are apart."""
    apart = f"{(predicted - measured) / measured:+.1%}" if measured > 0 else "nothing measured"
    return f"predicted {predicted / 1e6:,.0f} MB, measured {measured / 1e6:,.0f} MB ({apart})"


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


# --- llama.cpp and servers


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


@contextmanager
def serving(folder: Path, text: str) -> Iterator[Server]:
    """Start a server with a configuration, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file, log = folder / f"{port}.toml", folder / f"{port}.log"
    file.write_text(text, encoding="utf-8")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*MODELYARD, "serve", str(file), "--port", str(port)], stdout=out, stderr=subprocess.STDOUT, cwd=ROOT
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", process)
        _wait(server, log)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(MAX_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(MAX_STOP_S)


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + MAX_START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise CheckFailed(f"the server ended: {' '.join(log.read_text(errors='replace').split()[-40:])}")
        try:
            asked(server, "/v1/models")
        except (CheckFailed, OSError):
            time.sleep(0.2)
        else:
            return
    raise CheckFailed(f"the server was not ready within {MAX_START_S:.0f} s")


def asked(server: Server, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON that a server answers with, or raise CheckFailed with its error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=MAX_ANSWER_S) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise CheckFailed(f"{path}: {error.code} {error.read(500).decode(errors='replace')}") from error


def completed(server: Server, model: str) -> str:
    """Return a short greedy answer of a model."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    return str(asked(server, "/v1/completions", body)["choices"][0]["text"])


def loaded(server: Server) -> list[str]:
    """Return the names of the models that are loaded."""
    return [model["id"] for model in asked(server, "/v1/models")["data"] if model["status"] == "loaded"]


def predicted(server: Server) -> dict[str, int]:
    """Return the predicted bytes of each model."""
    return {model["id"]: model["predicted_bytes"] for model in asked(server, "/v1/models")["data"]}


def host_bytes(process: int) -> int:
    """Return the memory of a process and its children in proportion to how many share it. Linux; 0 elsewhere."""
    total = 0
    for pid in _family(process):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def _family(process: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    family = [process]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


# --- the rows


def doctor_row() -> tuple[Verdict, str]:
    """What doctor says of accelerators."""
    done = subprocess.run([*MODELYARD, "doctor", "--json"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    found = findings["devices"]
    if findings["llama_cpp"]["verdict"] == "problem":
        raise CheckFailed(findings["llama_cpp"]["value"])
    seen = "; ".join(filter(None, (*found["value"].splitlines(), found["advice"])))
    return "ok" if found["verdict"] == "ok" else "failed", seen


def serving_rows(folder: Path, models: Sequence[Path], devices: Sequence[Device]) -> Iterator[Row]:
    """Two models that fit together, what they take against what was predicted, and the same two with less memory."""
    numbers: dict[str, Any] = {}
    sizes: dict[str, int] = {}

    def both() -> str:
        with serving(folder, config_text(models)) as server:
            before = host_bytes(server.process.pid)
            answers = [completed(server, name) for name in NAMES]
            sizes.update(predicted(server))
            numbers["host"] = host_bytes(server.process.pid) - before
            numbers["free"] = [device.free_bytes for device in accelerators()]
            if loaded(server) != list(NAMES):
                raise CheckFailed(f"only these are loaded: {', '.join(loaded(server)) or 'none'}")
        return f"both loaded; {answers[0].strip()[:30]!r} and {answers[1].strip()[:30]!r}"

    def memory() -> tuple[Verdict, str]:
        if "free" not in numbers:
            raise CheckFailed("the models were not loaded")
        total = sum(sizes.values())
        if not devices:
            # The host's memory holds more than models: their processes, and what the system keeps of files.
            return "seen", f"host: {compared(total, numbers['host'])}"
        pairs = zip(devices, numbers["free"], strict=True)
        taken = {device.name: device.free_bytes - free for device, free in pairs}
        measured = sum(taken.values())
        seen = "; ".join(f"{name} {each / 1e6:,.0f} MB" for name, each in taken.items())
        # Predictions are for the host's memory and the devices' together.
        return "seen", f"{compared(total, measured)}: {seen}"

    yield checked("two models that fit", both)
    yield checked("predicted, measured", memory)
    if not sizes:
        return
    text = config_text(models, budget_bytes=round(max(sizes.values()) * BUDGET_MARGIN))

    def alternate() -> str:
        with serving(folder, text) as server:
            answers = []
            for name in (*NAMES, NAMES[0]):
                answers.append(completed(server, name))
                if loaded(server) != [name]:
                    raise CheckFailed(f"after an answer of {name}, these are loaded: {', '.join(loaded(server))}")
        if answers[0] != answers[2]:
            raise CheckFailed("the first model answers otherwise after it was loaded again")
        return "each was loaded for its answer, and the first one answered the same again"

    def under_load() -> str:
        with serving(folder, text) as server, ThreadPoolExecutor(CLIENTS) as clients:
            started = time.monotonic()
            asks = [clients.submit(completed, server, NAMES[number % 2]) for number in range(REQUESTS)]
            for ask in asks:
                ask.result()
            seconds = time.monotonic() - started
        return f"{REQUESTS} requests of {CLIENTS} clients, all answered in {seconds:.1f} s"

    yield checked("two that do not fit", alternate)
    yield checked("swap under load", under_load)


def split_row(folder: Path, models: Sequence[Path], devices: Sequence[Device]) -> tuple[Verdict, str]:
    """Some layers of a model on a device or on two, the others on the host."""
    if not devices:
        return "no device", ""
    with serving(folder, config_text(models[:1], layers=split_of(len(devices)))) as server:
        completed(server, NAMES[0])
        free = [device.free_bytes for device in accelerators()]
    taken = [device.free_bytes - now for device, now in zip(devices, free, strict=True)]
    if not all(each > 0 for each in taken[:2]):
        raise CheckFailed(f"layers were given to devices that hold nothing: {taken}")
    return "ok", f"device_layers = {split_of(len(devices))}: {', '.join(f'{each / 1e6:,.0f} MB' for each in taken)}"


def main(arguments: Sequence[str]) -> int:
    """Run all checks and print the table; the exit status."""
    models = [Path(each).resolve() for each in arguments] or [ROOT / each for each in MODELS]
    if len(models) != len(NAMES) or not all(path.exists() for path in models):
        print(f"Name two GGUF files that exist. These were named: {', '.join(map(str, models))}")
        return 2
    started = time.monotonic()
    report: dict[str, Any] = {}

    def built() -> str:
        report.update(llama_report())
        missing = "".join(f"; {each['name']} cannot be loaded: {each['reason']}" for each in report["missing"])
        return f"llama.cpp {report['version']} with {', '.join(report['backends'])}{missing}"

    rows = [checked("build", built), checked("doctor", doctor_row)]
    if report:
        devices = accelerators()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows += serving_rows(folder, models, devices)
            rows.append(checked("a split", lambda: split_row(folder, models, devices)))
    print(table(rows))
    print(f"\n{time.monotonic() - started:.0f} seconds on {os.cpu_count()} cores")
    return 1 if any(row.verdict == "failed" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
