"""Play many interleavings of the residency machine, or one again: ``simulate.py N``, ``simulate.py --seed S``.

``simulate.py --days N`` plays days of traffic with costs: the residency against other policies.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.costs.machine import Machine
from support.costs.report import Row, rows_of, table_of
from support.costs.traffic import Traffic
from support.simulation import Violation, play, run, world_of

CHUNK = 250
FAILURES_SHOWN = 3


def play_many(seeds: range) -> tuple[int, list[tuple[int, str]]]:
    """Play ``seeds``: how many steps that were, and what failed."""
    steps, failures = 0, []
    for seed in seeds:
        try:
            steps += run(seed).steps
        except Violation as violation:
            failures.append((seed, str(violation)))
    return steps, failures


def replay(seed: int, console: Console) -> int:
    """Play one seed and show all that happens."""
    world = world_of(seed, is_traced=True)
    violation = None
    try:
        play(world)
    except Violation as failure:
        violation = failure
    console.print("\n".join(f"{now:9.3f} {what}" for now, what in world.trace), markup=False)
    if violation is not None:
        console.print(str(violation), markup=False)
        return 1
    console.print(f"seed {seed}: no violation in {world.steps} steps")
    return 0


def play_day(seed_and_traffic: tuple[int, Traffic]) -> dict[str, Row]:
    """Play the day of a seed with all policies."""
    return rows_of(*seed_and_traffic, Machine())


def play_days(days: int, first: int, traffic: Traffic, console: Console) -> int:
    """Play days of traffic with costs, and show what each policy makes of them."""
    tasks = [(seed, traffic) for seed in range(first, first + days)]
    with multiprocessing.Pool(os.cpu_count()) as pool:
        done = pool.imap(play_day, tasks)
        rows = list(track(done, "Simulating", days, console=console))
    console.print(table_of(rows))
    requests = sum(next(iter(day.values())).requests for day in rows)
    console.print(f"{days} seeds of {traffic.duration_s / 3600:g} h, {requests} requests for {traffic.models} models")
    return 0


def main() -> int:
    """Play what the command line asks for; the exit code is 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=10_000, metavar="N", help="interleavings to play")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this one alone, and show all that happens")
    parser.add_argument("--days", type=int, help="play so many days of traffic with costs")
    parser.add_argument("--hours", type=float, default=24.0, help="hours of a day: a shorter one has the same traffic")
    parser.add_argument("--rate", type=float, default=Traffic().requests_per_s, help="requests a second of a day")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    if options.days is not None:
        traffic = Traffic(duration_s=3600 * options.hours, requests_per_s=options.rate)
        return play_days(options.days, options.first, traffic, console)
    if options.seed is not None:
        return replay(options.seed, console)
    began = time.perf_counter()
    seeds = range(options.first, options.first + options.runs)
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    steps, failures = 0, []
    with multiprocessing.Pool(os.cpu_count()) as pool:
        done = pool.imap_unordered(play_many, chunks)
        for chunk_steps, chunk_failures in track(done, "Simulating", len(chunks), console=console):
            steps += chunk_steps
            failures += chunk_failures
    for _, text in sorted(failures)[:FAILURES_SHOWN]:
        console.print(text + "\n", markup=False)
    took_s = time.perf_counter() - began
    console.print(
        f"{options.runs} interleavings, {steps} steps in {took_s:.0f} s ({options.runs / took_s:.0f} a second): "
        f"{len(failures)} violations"
    )
    if failures:
        console.print(
            f"Seeds: {', '.join(str(seed) for seed, _ in sorted(failures)[:20])}. Play one: make simulate SEED="
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
