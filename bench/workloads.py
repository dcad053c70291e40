"""What is measured. Each workload gives one number for one system and repetition: higher is better but for seconds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.client import Answer
from bench.files import long_prompt, story
from bench.report import FACTOR, OURS
from bench.systems import System

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work.

    Attributes:
        unit: "tokens/s" or FACTOR; or "s", of which less is better.
        measure: does it once.
        goals: ratio of Modelyard to another system that it is to reach, by the name of the other; under its own name,
            what it is to reach by itself.
    """

    unit: str
    measure: Callable[[System], Awaitable[float]]
    goals: dict[str, float]


async def one_stream(system: System, **fields: Any) -> float:
    """Decode of one stream, after its first token."""
    (answer,) = await system.ask([story(next(_numbers))], 160, **fields)
    return answer.tokens_per_s


async def eight_streams(system: System, **fields: Any) -> float:
    """Tokens of eight streams, from the request to the last."""
    answers = await system.ask([story(next(_numbers)) for _ in range(8)], 100, **fields)
    return _rate(answers)


async def two_models(system: System) -> float:
    """Tokens of eight streams on each of two models, from the request to the last."""
    both = await asyncio.gather(*(_eight_of(system, model) for model in range(2)))
    return _rate([answer for answers in both for answer in answers])


async def least_share(system: System) -> float:
    """Speed of a model beside the other, eight streams each, as a part of its speed alone; of the one that has less."""
    alone = [await _eight_of(system, model) for model in range(2)]
    beside = await asyncio.gather(*(_eight_of(system, model) for model in range(2)))
    return min(_rate(b) / _rate(a) for a, b in zip(alone, beside, strict=True))


async def gain_over_turns(system: System) -> float:
    """Time of eight streams on one model and then on the other, as a multiple of that of both at once."""
    in_turn = [_seconds(await _eight_of(system, model)) for model in range(2)]
    beside = await asyncio.gather(*(_eight_of(system, model) for model in range(2)))
    return sum(in_turn) / _seconds([answer for answers in beside for answer in answers])


async def _eight_of(system: System, model: int) -> list[Answer]:
    return await system.ask([story(next(_numbers)) for _ in range(8)], 60, model)


async def prefill(system: System) -> float:
    """Seconds to the first token of a prompt of 1,500 tokens."""
    (answer,) = await system.ask([long_prompt(next(_numbers))], 2)
    return answer.first_token_s


async def repeated(system: System) -> float:
    """Seconds to the first token of a prompt of 1,500 tokens that came before."""
    prompt = long_prompt(next(_numbers))
    await system.ask([prompt], 2)
    (answer,) = await system.ask([prompt], 2)
    return answer.first_token_s


def _rate(answers: list[Answer]) -> float:
    return sum(answer.tokens for answer in answers) / _seconds(answers)


def _seconds(answers: list[Answer]) -> float:
    """From the first request to the last token."""
    return max(answer.last for answer in answers) - min(answer.began for answer in answers)


# What requests ask of tokens, beside their number.
_SAMPLING: dict[str, dict[str, Any]] = {
    "temperature 0.8, top-p": {"temperature": 0.8, "top_p": 0.95},
    "temperature 1": {"temperature": 1.0},
    "penalties": {"temperature": 0.8, "top_p": 0.95, "frequency_penalty": 0.5, "presence_penalty": 0.5},
    "JSON": {"response_format": {"type": "json_object"}},
    "logprobs": {"logprobs": 5},
}


def _sampled() -> dict[str, Workload]:
    return {
        f"{streams}, {name}": Workload("tokens/s", partial(measure, **fields), {"llama.cpp server": 1.0})
        for name, fields in _SAMPLING.items()
        for streams, measure in (("one stream", one_stream), ("eight streams", eight_streams))
    }


WORKLOADS = {
    "one stream": Workload("tokens/s", one_stream, {"bare loop": 0.97, "llama.cpp server": 1.0, "mistralrs": 2.1}),
    "eight streams": Workload("tokens/s", eight_streams, {"bare loop": 0.95, "llama.cpp server": 1.0}),
    **_sampled(),
    "two models": Workload("tokens/s", two_models, {"llama.cpp server": 1.0}),
    "two models, least share": Workload(FACTOR, least_share, {OURS: 0.4}),
    "two models, gain over turns": Workload(FACTOR, gain_over_turns, {OURS: 0.97}),
    "prefill": Workload("s", prefill, {}),
    "repeated prompt": Workload("s", repeated, {}),
}
