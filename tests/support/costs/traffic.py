"""The models and the requests of a day, from a seed: Zipf popularity, conversations, bursts, day and night."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final, NamedTuple

from support.costs.machine import SimulatedModel

SOURCES_BYTES_PER_S: Final = (3e9, 1.5e9)
"""Bandwidths of a local disk and of a shared store, where half of the models are each."""

BURST_SHARE: Final = 0.1
"""Share of the requests that come in batches of 10 to 40 within seconds."""


class Arrival(NamedTuple):
    """A request: when it arrives, for which model, and how many tokens its prompt and its answer have."""

    at: float
    model: str
    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a day is like.

    Attributes:
        models: how many there are, of 1 to 70 billion parameters.
        duration_s: of the day.
        requests_per_s: on average over the day and all models.
        zipf: exponent of the popularity.
        turns: requests of a conversation, on average.
        think_s: between an answer's request and the next one, on average.
    """

    models: int = 200
    duration_s: float = 86_400.0
    requests_per_s: float = 3.0
    zipf: float = 1.0
    turns: float = 5.0
    think_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Day:
    """The models, by name, and all requests in the order of their arrival."""

    models: dict[str, SimulatedModel]
    arrivals: tuple[Arrival, ...]
    duration_s: float


def day_of(seed: int, traffic: Traffic) -> Day:
    """Return the day of a seed."""
    rng = random.Random(seed)
    models = [
        SimulatedModel(f"m{number:03}", math.exp(rng.uniform(0.0, math.log(70.0))), rng.choice(SOURCES_BYTES_PER_S))
        for number in range(traffic.models)
    ]
    popular = rng.sample(models, len(models))
    weights = [1.0 / (rank + 1) ** traffic.zipf for rank in range(len(models))]
    total = traffic.requests_per_s * traffic.duration_s
    arrivals: list[Arrival] = []
    while len(arrivals) < total:
        (model,) = rng.choices(popular, weights)
        at = _time_of_day(rng, traffic.duration_s)
        if rng.random() < BURST_SHARE * traffic.turns / 25:
            arrivals += _batch(rng, at, model.name)
        else:
            arrivals += _conversation(rng, at, model.name, traffic)
    within = [arrival for arrival in arrivals if arrival.at < traffic.duration_s]
    return Day({model.name: model for model in models}, tuple(sorted(within)), traffic.duration_s)


def _time_of_day(rng: random.Random, duration_s: float) -> float:
    """Return when something begins: at the peak four times as often as in the night."""
    while True:
        at = rng.random()
        if rng.random() < 0.625 - 0.375 * math.cos(2 * math.pi * at):
            return at * duration_s


def _conversation(rng: random.Random, at: float, model: str, traffic: Traffic) -> list[Arrival]:
    turns: list[Arrival] = []
    prompt = _length(rng, 600)
    while True:
        answer = _length(rng, 200)
        turns.append(Arrival(at, model, min(prompt, 8_000), answer))
        if rng.random() < 1.0 / traffic.turns:
            return turns
        at += rng.expovariate(1.0 / traffic.think_s) + 0.05 * answer
        # The engine reuses what it has computed: of a further turn the message alone is new.
        prompt = _length(rng, 150)


def _batch(rng: random.Random, at: float, model: str) -> list[Arrival]:
    return [
        Arrival(at + rng.uniform(0.0, 10.0), model, _length(rng, 600), _length(rng, 100))
        for _ in range(rng.randint(10, 40))
    ]


def _length(rng: random.Random, median: int) -> int:
    return max(8, min(4_000, round(rng.lognormvariate(math.log(median), 0.7))))
