"""Several days of several policies, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from rich.table import Table

from support.costs.day import Outcome, Policy, play
from support.costs.machine import Machine
from support.costs.oracle import Oracle
from support.costs.policies import LeastRecentlyUsed, Served
from support.costs.traffic import Day, Traffic, day_of

BOUND_S = 10.0
"""A request counts whose first token came within this time."""

SERVED, BY_COUNT, BY_BYTES, ORACLE = "Modelyard", "LRU by count", "LRU by bytes", "oracle"

POLICIES: Mapping[str, Callable[[Day, Machine], Policy]] = {
    BY_COUNT: lambda day, machine: LeastRecentlyUsed(day, machine, by_count=True),
    BY_BYTES: lambda day, machine: LeastRecentlyUsed(day, machine, by_count=False),
    SERVED: Served,
    ORACLE: lambda day, machine: Oracle(day, machine, loads_ahead=False),
    "oracle, ahead": lambda day, machine: Oracle(day, machine, loads_ahead=True),
}


class Row(NamedTuple):
    """What a policy made of one day; shares are of all requests of the day.

    Attributes:
        requests: that arrived.
        share: of them, those whose first token came within ``BOUND_S``.
        goodput: these requests a second.
        tokens_per_s: of these requests.
        p50_s, p90_s: within which half and nine tenths of the requests had their first token.
        loads: of models.
    """

    requests: int
    share: float
    goodput: float
    tokens_per_s: float
    p50_s: float
    p90_s: float
    loads: int


def row_of(outcome: Outcome) -> Row:
    """Return what the table has of a day."""
    requests = len(outcome.tokens)
    goodput = outcome.goodput(BOUND_S)
    return Row(
        requests,
        goodput * outcome.duration_s / max(1, requests),
        goodput,
        outcome.good_tokens_per_s(BOUND_S),
        outcome.quantile(0.5),
        outcome.quantile(0.9),
        outcome.loads,
    )


def rows_of(seed: int, traffic: Traffic, machine: Machine, names: Sequence[str] = tuple(POLICIES)) -> dict[str, Row]:
    """Return what policies make of the day of a seed."""
    day = day_of(seed, traffic)
    return {name: row_of(play(day, machine, POLICIES[name](day, machine))) for name in names}


def table_of(days: Sequence[Mapping[str, Row]]) -> Table:
    """Return the means of several days, with the least and the greatest ratio to the oracle of one."""
    table = Table(box=None, pad_edge=False)
    table.add_column("policy")
    for heading in ("within 10 s", "requests/s", "tokens/s", "p50", "p90", "loads", "of the oracle's", "of LRU's"):
        table.add_column(heading, justify="right")
    for name in days[0]:
        rows = [day[name] for day in days]
        of_oracle = [day[name].goodput / day[ORACLE].goodput for day in days]
        of_count = [day[name].goodput / day[BY_COUNT].goodput for day in days]
        table.add_row(
            name,
            f"{mean(row.share for row in rows):.3f}",
            f"{mean(row.goodput for row in rows):.2f}",
            f"{mean(row.tokens_per_s for row in rows):.0f}",
            f"{mean(row.p50_s for row in rows):.1f} s",
            f"{mean(row.p90_s for row in rows):.1f} s",
            f"{mean(row.loads for row in rows):.0f}",
            f"{min(of_oracle):.2f} to {max(of_oracle):.2f}",
            f"{min(of_count):.2f} to {max(of_count):.2f}",
        )
    return table
