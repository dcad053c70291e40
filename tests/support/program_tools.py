"""Functions of a program, and models that may call them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelyard import Model
from modelyard.protocol.requests import Submit
from support.scripted_engines import ScriptedEngines

Build = Callable[..., Model]


@dataclass
class Weather:
    city: str
    degrees: int


def weather(city: str) -> Weather:
    """Look up the weather.

    Args:
        city: Name of the city.
    """
    return Weather(city, len(city))


async def clock() -> str:
    """Tell the time."""
    return "noon"


def broken() -> str:
    raise ValueError("no luck")


def submits(engines: ScriptedEngines, model: str, number: int) -> Sequence[Submit]:
    """What the engine of ``model`` has been asked, at least ``number`` times."""
    heard = engines.of(model)[-1].heard(Submit, number)
    return [message for message in heard if isinstance(message, Submit)]
