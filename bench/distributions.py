"""A plot of distributions: which part of the requests had its first token by when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

LEFT, WIDTH, HEIGHT, GAP = 60, 520, 180, 70
# The axis of time is logarithmic, from 20 ms to two minutes.
MIN_S, MAX_S = 0.02, 120.0
TICKS_S = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
COLOURS = ("#2b6cb0", "#90cdf4", "#c05621", "#718096")


def plot(curves: Mapping[float, Mapping[str, Sequence[float]]]) -> str:
    """SVG: for each rate, and each system, the part of the requests (0 to 1) against the time to the first token.

    Args:
        curves: rate in requests per model and second -> system -> seconds of each request, sorted.
    """
    drawn, top = [], 60
    names = list(dict.fromkeys(name for systems in curves.values() for name in systems))
    for at, name in enumerate(names):
        x = LEFT + at * 190
        drawn.append(f'<line x1="{x}" x2="{x + 22}" y1="30" y2="30" stroke="{COLOURS[at]}" stroke-width="3"/>')
        drawn.append(f'<text x="{x + 28}" y="34">{escape(name)}</text>')
    for rate, systems in curves.items():
        drawn.append(f'<text x="{LEFT}" y="{top - 8}">{rate} requests per model and second</text>')
        drawn.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#cbd5e0"/>')
        for seconds in TICKS_S:
            x = _x(seconds)
            drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + HEIGHT}" stroke="#edf2f7"/>')
            drawn.append(f'<text x="{x:.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{seconds:g} s</text>')
        for part in (0, 0.5, 1):
            y = top + HEIGHT * (1 - part)
            drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{part:g}</text>')
        for name, values in systems.items():
            drawn.append(_curve(values, top, COLOURS[names.index(name)]))
        top += HEIGHT + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 40}" height="{top - 20}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
        + "".join(drawn)
        + "</svg>\n"
    )


def _curve(values: Sequence[float], top: int, colour: str) -> str:
    points = []
    for number, seconds in enumerate(values):
        x = _x(seconds)
        points += [f"{x:.1f},{_y(number / len(values), top):.1f}", f"{x:.1f},{_y((number + 1) / len(values), top):.1f}"]
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _x(seconds: float) -> float:
    part = math.log(max(seconds, MIN_S) / MIN_S) / math.log(MAX_S / MIN_S)
    return LEFT + WIDTH * min(part, 1.0)


def _y(part: float, top: int) -> float:
    return top + HEIGHT * (1 - part)
