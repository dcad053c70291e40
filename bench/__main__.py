"""``make bench``: Modelyard and its peers on the same work, interleaved in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from bench import agents, many_models, report
from bench.files import ROOT, weights
from bench.http_only import HTTP, UNITS, http_only
from bench.native import native_server
from bench.peers import VERSIONS, environment
from bench.swap import llama_server_swaps, modelyard_swaps
from bench.systems import System, bare_loop, llama_cpp_python, llama_server, mistralrs, modelyard
from bench.workloads import WORKLOADS
from modelyard.errors import UnusableModel

FOLDER, RESULTS = ROOT / ".bench", ROOT / "bench" / "results"
LLAMA_SERVER = "llama.cpp server"
SWAP, SWAP_GOAL = "swap, first token", {LLAMA_SERVER: 2.0}

SAMPLED = [name for name in WORKLOADS if name.startswith(("one stream, ", "eight streams, "))]
EIGHT_STREAMS = [name for name in WORKLOADS if name.startswith("eight streams")]
TWO_MODELS = [name for name in WORKLOADS if name.startswith("two models")]

# The workloads that a system cannot do, and why.
IMPOSSIBLE = {
    "mistralrs": {
        **dict.fromkeys(SAMPLED, "its runner is greedy"),
        **dict.fromkeys((*EIGHT_STREAMS, *TWO_MODELS), "one request at a time, one model"),
    },
    "llama-cpp-python": dict.fromkeys((*EIGHT_STREAMS, *TWO_MODELS), "one request at a time"),
    "bare loop": {
        **dict.fromkeys(SAMPLED, "it is greedy"),
        **dict.fromkeys(TWO_MODELS, "one model"),
        "repeated prompt": "it keeps nothing",
    },
}


class Bench:
    """One run.

    Attributes:
        measured: by workload and system, one number a repetition, or why there is none.
    """

    def __init__(self, console: Console, repetitions: int) -> None:
        self.console, self.repetitions = console, repetitions
        self.measured: dict[str, dict[str, list[float] | str]] = {}
        self._missing: dict[str, str] = {}
        self._files = weights(FOLDER)
        self._pythons: dict[str, Path] = {}
        self._native: Path | None = None
        try:
            self._native = native_server(FOLDER, console)
        except (RuntimeError, UnusableModel) as error:
            self._missing[LLAMA_SERVER] = str(error)
        for peer in VERSIONS:
            try:
                self._pythons[peer] = environment(peer, FOLDER, console)
            except RuntimeError as error:
                self._missing[peer] = str(error)

    def _systems(self) -> dict[str, AbstractContextManager[System]]:
        first, _ = self._files
        systems: dict[str, AbstractContextManager[System]] = {
            report.OURS: modelyard(FOLDER, self._files, prompt_lookup=False),
            "bare loop": bare_loop(first),
        }
        if self._native is not None:
            systems[LLAMA_SERVER] = llama_server(self._native, self._files)
        if python := self._pythons.get("mistralrs"):
            systems["mistralrs"] = mistralrs(python, first)
        if python := self._pythons.get("llama-cpp-python"):
            systems["llama-cpp-python"] = llama_cpp_python(python, self._files)
        return systems

    def run(self, chosen: list[str]) -> Iterator[str]:
        """Measure the workloads, and say of each when it is done."""
        with ExitStack() as stack, Progress(console=self.console) as progress:
            systems: dict[str, System] = {}
            for name, starting in self._systems().items():
                try:
                    systems[name] = stack.enter_context(starting)
                except RuntimeError as error:
                    self._missing[name] = str(error)
            for workload in (name for name in chosen if name in WORKLOADS):
                self._measure(workload, systems, progress)
                yield workload
        if SWAP in chosen:
            self._swap()
            yield SWAP
        if HTTP in chosen:
            self.measured |= asyncio.run(http_only(self._files[0], self.repetitions))
            yield HTTP

    def _measure(self, workload: str, systems: dict[str, System], progress: Progress) -> None:
        values = self.measured[workload] = dict(self._missing)  # type: ignore[arg-type]
        able = [name for name in systems if workload not in IMPOSSIBLE.get(name, {})]
        values |= {name: IMPOSSIBLE[name][workload] for name in systems if name not in able}
        task = progress.add_task(workload, total=(self.repetitions + 1) * len(able))
        for repetition in range(self.repetitions + 1):
            # Another one begins each time; the first round warms up.
            turn = repetition % len(able)
            for name in (*able[turn:], *able[:turn]):
                try:
                    value = asyncio.run(WORKLOADS[workload].measure(systems[name]))
                except (RuntimeError, OSError, json.JSONDecodeError) as error:
                    values[name] = str(error)
                    continue
                finally:
                    progress.advance(task)
                kept = values.setdefault(name, [])
                if repetition and not isinstance(kept, str):
                    kept.append(value)

    def _swap(self) -> None:
        self.measured[SWAP] = {
            report.OURS: asyncio.run(modelyard_swaps(FOLDER, self._files, self.repetitions)),
        }
        if self._native is not None:
            self.measured[SWAP][LLAMA_SERVER] = asyncio.run(
                llama_server_swaps(self._native, self._files, self.repetitions)
            )


def main() -> int:
    """Run, write the results, show the table."""
    names = [*WORKLOADS, SWAP, HTTP, many_models.NAME, agents.NAME]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", action="append", choices=names, help="this workload; may be repeated")
    options = parser.parse_args()
    console, chosen = Console(), options.only or names
    if workloads := [name for name in chosen if name not in (many_models.NAME, agents.NAME)]:
        bench = Bench(console, options.repetitions)
        table = ""
        for workload in bench.run(workloads):
            console.print(f"Measured: {workload}")
            table = write(bench)
        console.print(Markdown(table))
        console.print(f"Written to {RESULTS.relative_to(ROOT)}/")
    if many_models.NAME in chosen:
        many_models.run(console)
    if agents.NAME in chosen:
        agents.run(console)
    return 0


def write(bench: Bench) -> str:
    """Write what is measured so far; the table."""
    units = {name: workload.unit for name, workload in WORKLOADS.items()} | {SWAP: "s"} | UNITS
    goals = {name: workload.goals for name, workload in WORKLOADS.items()} | {SWAP: SWAP_GOAL}
    table = report.table(bench.measured, units, goals)
    RESULTS.mkdir(parents=True, exist_ok=True)
    today = datetime.now(tz=UTC).date().isoformat()
    facts = {"date": today, "processor": platform.processor() or platform.machine(), "versions": VERSIONS}
    (RESULTS / f"{today}.json").write_text(json.dumps({**facts, "measured": bench.measured}, indent=1) + "\n")
    (RESULTS / "latest.md").write_text(f"Measured on {today}; SmolLM2-135M at Q4_0.\n\n{table}")
    (RESULTS / "latest.svg").write_text(report.plot(bench.measured, units))
    return table


if __name__ == "__main__":
    sys.exit(main())
