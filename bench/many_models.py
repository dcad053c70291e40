"""Many models, memory for a few: the same trace on Modelyard, on llama.cpp's router, and with memory for all.

    python -m bench.many_models [--seconds N] [--rate R …]

The router holds two models; Modelyard gets as much memory as the router takes with them, itself included. The results
are in ``results/many-models.md`` and in a plot of the times to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from bench.client import Answer, complete
from bench.distributions import plot
from bench.files import ROOT, weights
from bench.memory import MemoryWatch, tree_bytes
from bench.native import native_server
from bench.systems import Http, free_port, llama_server_options, modelyard, server_process
from bench.traces import Arrival, poisson

NAME = "many models"
FOLDER, RESULTS = ROOT / ".bench", ROOT / "bench" / "results"
MODELS, RESIDENT = 6, 2
CONTEXT, SEQUENCES = 4096, 8
RATES = (0.12, 0.2, 0.3)
SECONDS = 90.0
SEED = 1
# Requests that came to nothing count as late as this.
LATE_S = 120.0
OURS, LIMIT, ROUTER = "Modelyard", "Modelyard, memory for all", "llama.cpp's router"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trace.

    Attributes:
        first_token_s: of each request, sorted; LATE_S where there was none.
        failed: number of requests without a whole answer.
        tokens_per_s: tokens of all answers, from the first request to the last token.
        gap_p99_s: 99th percentile of the pauses between two tokens of a stream.
        most_bytes: most memory of the server's processes, as their shares of what several use.
    """

    first_token_s: list[float]
    failed: int
    tokens_per_s: float
    gap_p99_s: float
    most_bytes: int

    def percentile(self, part: float) -> float:
        """The time to the first token that this part of the requests has at the most."""
        return _percentile(self.first_token_s, part)

    def within(self, seconds: float) -> float:
        """Part of the requests whose first token came within so many seconds."""
        return sum(each <= seconds for each in self.first_token_s) / len(self.first_token_s)


def six_models(folder: Path) -> list[Path]:
    """Six models that share nothing, in a folder of their own, as the router wants them."""
    source, _ = weights(folder)
    place = folder / "six"
    place.mkdir(exist_ok=True)
    files = [place / f"model-{number}.gguf" for number in range(MODELS)]
    for file in files:
        if not file.exists():
            shutil.copy(source, file)
    return files


@contextmanager
def router(program: Path, files: Sequence[Path]) -> Iterator[Http]:
    """llama.cpp's router on the models."""
    port = free_port()
    command = [str(program), "--models-dir", str(files[0].parent), "--models-max", str(RESIDENT)]
    # Its processes do not know of each other: with a longer spin they hold the cores that the others need, and nearly
    # all requests fail.
    spin = {"GOMP_SPINCOUNT": "100"}
    with server_process([*command, *llama_server_options(port, CONTEXT, SEQUENCES)], port, **spin) as pid:
        yield Http([(port, file.stem) for file in files], pid)


async def replay(system: Http, trace: Sequence[Arrival]) -> Outcome:
    """Ask what a trace asks, when it does."""
    # Loaded once, so that no first time is measured: a trial, a file that is not cached.
    for port, name in system.models:
        await complete(port, name, "Hello", 1, {})
    began = time.perf_counter()
    with MemoryWatch(system.pid) as memory:
        answers = await asyncio.gather(*(_ask(system, arrival, began) for arrival in trace))
    whole = [answer for answer in answers if answer is not None]
    gaps = sorted(gap for answer in whole for gap in answer.gaps)
    return Outcome(
        sorted(LATE_S if answer is None else answer.first_token_s for answer in answers),
        len(answers) - len(whole),
        sum(answer.tokens for answer in whole) / (max(answer.last for answer in whole) - began),
        _percentile(gaps, 0.99),
        memory.most_bytes,
    )


async def _ask(system: Http, arrival: Arrival, began: float) -> Answer | None:
    await asyncio.sleep(began + arrival.at_s - time.perf_counter())
    port, name = system.models[arrival.model]
    with contextlib.suppress(RuntimeError, OSError, TimeoutError):
        async with asyncio.timeout(LATE_S):
            return await complete(port, name, arrival.prompt, arrival.tokens, {})
    return None


def _percentile(values: Sequence[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))]


async def resident_bytes(program: Path, files: Sequence[Path]) -> int:
    """Memory of as many models as the router holds, each with a request answered, and of the router."""
    with router(program, files) as system:
        for port, name in system.models[:RESIDENT]:
            await complete(port, name, "Hello", 8, {})
        return tree_bytes(system.pid)


def own_bytes(files: Sequence[Path]) -> int:
    """Memory of Modelyard while no model is loaded."""
    with modelyard(FOLDER, files, prompt_lookup=True, budget="16GB", context=CONTEXT) as system:
        return tree_bytes(system.pid)


def table(outcomes: dict[float, dict[str, Outcome]]) -> str:
    """Markdown."""
    lines = [
        "| requests per model and second | | first token p50, s | p90, s | within 1 s | within 10 s | tokens/s | "
        "gap p99, s | failed | memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rate, systems in outcomes.items():
        for name, one in systems.items():
            lines.append(
                f"| {rate} | {name} | {one.percentile(0.5):.2f} | {one.percentile(0.9):.2f} | {one.within(1):.2f} | "
                f"{one.within(10):.2f} | {one.tokens_per_s:.1f} | {one.gap_p99_s:.3f} | {one.failed} | "
                f"{one.most_bytes / 1e6:.0f} |"
            )
    return "\n".join(lines) + "\n"


def run(console: Console, rates: Sequence[float] = RATES, seconds: float = SECONDS) -> None:
    """Measure all three on a trace of each rate, and write the results.

    Raises:
        RuntimeError, UnusableModel: llama.cpp's server cannot be built.
    """
    files = six_models(FOLDER)
    program = native_server(FOLDER, console)
    taken = asyncio.run(resident_bytes(program, files))
    own = own_bytes(files)
    budget = taken - own
    console.print(
        f"The router and its {RESIDENT} models take {taken / 1e6:.0f} MB. Modelyard without models takes "
        f"{own / 1e6:.0f} MB, so its budget for models is {budget / 1e6:.0f} MB."
    )
    outcomes: dict[float, dict[str, Outcome]] = {}
    for rate in rates:
        trace = poisson([rate] * MODELS, seconds, SEED, words=[0] * MODELS)
        systems = {
            OURS: modelyard(FOLDER, files, prompt_lookup=True, budget=f"{budget}B", context=CONTEXT),
            LIMIT: modelyard(FOLDER, files, prompt_lookup=True, budget="16GB", context=CONTEXT),
            ROUTER: router(program, files),
        }
        for name, starting in systems.items():
            with console.status(f"{rate} requests per model and second: {name}"), starting as system:
                outcomes.setdefault(rate, {})[name] = asyncio.run(replay(system, trace))
            console.print(Markdown(table({rate: {name: outcomes[rate][name]}})))
    RESULTS.mkdir(parents=True, exist_ok=True)
    today = datetime.now(tz=UTC).date().isoformat()
    head = (
        f"Measured on {today}: {MODELS} times SmolLM2-135M at Q4_0, {taken / 1e6:.0f} MB for all of the router, and "
        f"for all of Modelyard, {budget / 1e6:.0f} MB of it for models; traces of {seconds:.0f} s.\n\n"
    )
    (RESULTS / "many-models.md").write_text(head + table(outcomes))
    curves = {rate: {name: one.first_token_s for name, one in systems.items()} for rate, systems in outcomes.items()}
    (RESULTS / "many-models.svg").write_text(plot(curves))
    console.print(f"Written to {RESULTS.relative_to(ROOT)}/many-models.md and .svg")


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_models", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each trace")
    parser.add_argument("--rate", type=float, action="append", help="requests per model and second; may be repeated")
    options = parser.parse_args()
    run(Console(), options.rate or RATES, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
