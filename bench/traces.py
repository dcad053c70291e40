"""Traces of requests for several models: who asks for what, and when. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bench.files import story


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request.

    Attributes:
        at_s: seconds from the beginning of the trace.
        model: index of its model.
        prompt: its prompt.
        tokens: tokens of its answer.
    """

    at_s: float
    model: int
    prompt: str
    tokens: int


def poisson(rates: Sequence[float], seconds: float, seed: int, *, words: Sequence[int]) -> list[Arrival]:
    """Arrivals of each model by its own Poisson process, in the order of their times.

    Args:
        rates: requests per second of each model.
        seconds: length of the trace.
        seed: of the random numbers.
        words: words that a prompt of each model has beside those of a story.
    """
    draw = random.Random(seed)
    arrivals = []
    for model, rate in enumerate(rates):
        at = draw.expovariate(rate)
        while at < seconds:
            number = draw.randrange(10**6)
            text = " ".join(f"{number % 97} {word}" for word in range(words[model] // 2))
            arrivals.append(Arrival(at, model, f"{text} {story(number)}".strip(), draw.randint(16, 80)))
            at += draw.expovariate(rate)
    return sorted(arrivals, key=lambda arrival: arrival.at_s)
