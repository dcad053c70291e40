"""Play a day of a cluster on paper, with the planner and the router: ``simulate_cluster.py --nodes N --models N``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.cluster_day.day import DaySettings, play_day


def main() -> None:
    """Play what the command line asks for, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=DaySettings.nodes)
    parser.add_argument("--models", type=int, help="by default five for each node")
    parser.add_argument("--hours", type=float, default=24.0, help="how much of the day is played")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = DaySettings(
        nodes=options.nodes,
        models=options.models or 5 * options.nodes,
        requests_per_s=1.5 * options.nodes,
        duration_s=3600 * options.hours,
    )
    planned, default = play_day(options.seed, settings), play_day(options.seed, settings, routes=False)
    micros = [1e6 * each for each in planned.decisions_s]
    per_hour = max(sum(planned.planned_loads[at : at + 6]) for at in range(max(1, len(planned.planned_loads) - 5)))
    print(f"{settings.nodes} nodes, {settings.models} models, {options.hours:g} h, {planned.requests} sampled requests")
    found, at_random = (each.hits / each.requests for each in (planned, default))
    print(f"model loaded already: {found:.1%}, two at random {at_random:.1%}")
    print(f"beginning of the conversation there: {planned.prefixes / planned.requests:.1%}")
    print(f"loads that plans ask for in an hour: at most {per_hour}, of {settings.loads_per_hour} allowed")
    print(f"a decision: median {median(micros):.0f} µs, 99 of 100 within {quantiles(micros, n=100)[98]:.0f} µs")
    print(f"a plan: first {planned.plans_s[0]:.2f} s, then median {1e3 * median(planned.plans_s[1:]):.0f} ms")


if __name__ == "__main__":
    main()
