"""Models on scripted engines that call the functions of a program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from modelyard import AsyncModel, Model, ModelBuilder
from modelyard.inprocess.buildable import Buildable
from modelyard.yard.yard import Yard
from support.program_tools import Build
from support.scripted_engines import ScriptedEngines
from support.tool_turns import HERMES, call, turns

ASKS = turns(call("weather", city="Rome"), "It is {result}")


@pytest.fixture
def engines(engines: ScriptedEngines) -> ScriptedEngines:
    engines.output_format = HERMES
    engines.answer = ASKS
    return engines


@pytest.fixture
def build(engines: ScriptedEngines) -> Iterator[Build]:
    """Builds models on scripted engines."""
    built: list[Model] = []

    def build(builder: Buildable) -> Model:
        config = builder.config()
        model = Model(config, lambda config: Yard(config, engines.make_handle), tools=builder._checked_tools(config))
        built.append(model)
        return model

    yield build
    for model in built:
        model.close()


@pytest.fixture
async def built_async(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> AsyncIterator[Callable[[Buildable], Awaitable[AsyncModel]]]:
    built: list[AsyncModel] = []

    async def build(builder: Buildable) -> AsyncModel:
        config = builder.config()
        model = AsyncModel(
            config, lambda config: Yard(config, engines.make_handle), tools=builder._checked_tools(config)
        )
        built.append(model)
        await model.start()
        return model

    yield build
    for model in built:
        await model.aclose()
