"""From measurements to a table and a plot. Ratios are taken repetition by repetition: only those of one run compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from xml.sax.saxutils import escape

OURS = "modelyard"

# The units of which more is better; of all others, less is.
RATE, FACTOR = "tokens/s", "times"
MORE_IS_BETTER = frozenset({RATE, FACTOR})

# Workload -> system -> one number a repetition, or why there is none.
Measured = Mapping[str, Mapping[str, Sequence[float] | str]]


def ratios(ours: Sequence[float], theirs: Sequence[float], unit: str) -> list[float]:
    """How many times better we are, in each repetition."""
    return [a / b if unit in MORE_IS_BETTER else b / a for a, b in zip(ours, theirs, strict=True)]


def table(measured: Measured, units: Mapping[str, str], goals: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown."""
    lines = [
        "| workload | system | median (range) | Modelyard is better by (range) | goal |",
        "| --- | --- | --- | --- | --- |",
    ]
    for workload, systems in measured.items():
        ours = systems.get(OURS, "")
        for system, values in systems.items():
            if isinstance(values, str):
                lines.append(f"| {workload} | {system} | not measured: {values} | | |")
                continue
            unit = units[workload]
            better = goal = ""
            wanted = goals.get(workload, {}).get(system)
            if system == OURS and wanted is not None:
                goal = _verdict(values, wanted)
            if system != OURS and not isinstance(ours, str):
                times = ratios(ours, values, unit)
                better = f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
                if wanted is not None:
                    goal = _verdict(times, wanted)
            lines.append(f"| {workload} | {system} | {_spread(values, unit)} | {better} | {goal} |")
    return "\n".join(lines) + "\n"


def _verdict(values: Sequence[float], wanted: float) -> str:
    return f"{wanted:.2f} {'reached' if median(values) >= wanted else 'missed'}"


def _spread(values: Sequence[float], unit: str) -> str:
    digits = {RATE: 0, "µs": 1}.get(unit, 3)
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}) {unit}"


def plot(measured: Measured, units: Mapping[str, str]) -> str:
    """SVG: for each workload, how many times as good as Modelyard each system is, with its range."""
    left, width, bar, gap = 330, 420, 18, 26
    rows: list[str] = []
    y = 40
    for workload, systems in measured.items():
        ours = systems.get(OURS, "")
        if isinstance(ours, str):
            continue
        rows.append(f'<text x="10" y="{y + 13}" font-weight="bold">{escape(workload)}</text>')
        for system, values in systems.items():
            if isinstance(values, str):
                continue
            parts = [1 / ratio for ratio in ratios(ours, values, units[workload])]
            middle, low, high = median(parts), min(parts), max(parts)
            scale = width / 2
            colour = "#2b6cb0" if system == OURS else "#a0aec0"
            rows += [
                f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(system)}</text>',
                f'<rect x="{left}" y="{y}" width="{min(middle, 2) * scale:.1f}" height="{bar}" fill="{colour}"/>',
                f'<line x1="{left + min(low, 2) * scale:.1f}" x2="{left + min(high, 2) * scale:.1f}" '
                f'y1="{y + bar / 2}" y2="{y + bar / 2}" stroke="#1a202c" stroke-width="2"/>',
                f'<text x="{left + width + 8}" y="{y + 13}">{middle:.2f}</text>',
            ]
            y += gap
        y += 12
    one = left + width / 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{y + 20}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        '<text x="10" y="22" font-size="15">As good as Modelyard = 1; more is better; the line is the range</text>'
        f'<line x1="{one}" x2="{one}" y1="32" y2="{y}" stroke="#718096" stroke-dasharray="4"/>'
        + "".join(rows)
        + "</svg>\n"
    )
