"""A close ends every request and every engine, whatever they are doing."""

import asyncio
import threading

import pytest

from modelyard.errors import (
    ModelLoadFailed,
    ShuttingDown,
    UnusableModel,
)
from modelyard.protocol.requests import Stop
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from support.controller_stage import SHORT_S, soon, turn
from support.scripted_engines import MAX_WAIT_S, ScriptedEngine, ScriptedEngines


async def test_closing_what_was_never_used_is_done_at_once(stage_of):
    stage = stage_of()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(stage.submit()[1].accepted())
    with pytest.raises(ShuttingDown):
        await soon(stage.controller.reload("a"))


async def test_a_close_ends_streams_after_their_text_and_refuses_those_who_wait(stage_of):
    stage = stage_of()
    _, running = await stage.running()
    engine = await stage.engine()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    _, waiting = stage.submit()
    engine.say("half")
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert await soon(anext(running)) == "half"
    for hearing in (anext(running), waiting.accepted(), unload):
        with pytest.raises(ShuttingDown):
            await soon(hearing)
    stage.assert_nothing_is_left()
    assert engine.join(MAX_WAIT_S)


async def test_a_close_during_a_load_gives_it_up(stage_of):
    stage = stage_of(loads=False)
    _, waiting = stage.submit()
    engine = await stage.engine()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(waiting.accepted())
    assert engine.join(MAX_WAIT_S)


@pytest.mark.parametrize("last_words", [ScriptedEngine.load, lambda engine: engine.fail_load("bad magic")])
async def test_a_load_that_ends_while_it_is_closed_ends_the_close(stage_of, last_words):
    stage = stage_of(loads=False)
    _, waiting = stage.submit()
    engine = await stage.engine()
    last_words(engine)
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(waiting.accepted())
    stage.assert_nothing_is_left()


async def test_a_close_while_the_files_are_still_looked_for_does_not_wait_and_starts_no_engine(stage_of):
    is_looking, found, has_looked = threading.Event(), threading.Event(), threading.Event()
    made = []

    def look():
        is_looking.set()
        found.wait(MAX_WAIT_S)
        has_looked.set()

    async def make(model, publish, placement, cells):
        await asyncio.to_thread(look)
        made.append(model)

    stage = stage_of(make=make)
    _, waiting = stage.submit()
    assert await asyncio.to_thread(is_looking.wait, MAX_WAIT_S)
    assert await soon(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(waiting.accepted())
    found.set()
    assert await asyncio.to_thread(has_looked.wait, MAX_WAIT_S)
    await turn()
    assert made == []
    assert stage.model().load_state is LoadState.UNLOADED


async def test_a_close_before_the_load_has_begun_makes_no_engine(stage_of):
    stage = stage_of()
    stage.submit()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    await turn()
    assert stage.engines.of("a") == []


async def test_a_close_overtakes_an_unload_that_is_freeing(stage_of):
    stage = stage_of()
    await soon(stage.controller.reload("a"))
    engine = await stage.engine()
    engine.hang()
    unload = stage.controller.unload("a", UnloadMode.DRAIN)
    await turn()
    close = asyncio.create_task(stage.controller.close(MAX_WAIT_S))
    with pytest.raises(ShuttingDown):
        await soon(unload)
    engine.wake()
    assert await soon(close)
    assert len(await stage.heard(engine, Stop)) == 1


async def test_closing_twice_and_at_once_is_closing_once(stage_of):
    stage = stage_of()
    await stage.running()
    engine = await stage.engine()
    closes = (stage.controller.close(MAX_WAIT_S) for _ in range(2))
    assert await soon(asyncio.gather(*closes)) == [True, True]
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert len(await stage.heard(engine, Stop)) == 1


async def test_closing_an_engine_that_hangs_returns_false_and_ends_all_requests(stage_of):
    stage = stage_of()
    _, running = await stage.running()
    engine = await stage.engine()
    engine.hang()
    engine.say("too late")
    assert not await soon(stage.controller.close(SHORT_S))
    with pytest.raises(ShuttingDown):
        await soon(anext(running))
    assert not await soon(stage.controller.close(SHORT_S))

    engine.wake()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    stage.assert_nothing_is_left()


async def test_a_close_with_a_model_in_every_state_frees_them_all(stage_of):
    forever = asyncio.Event()
    engines = ScriptedEngines(loads=False)

    async def make(model, publish, placement, cells):
        if model == "resolving":
            await forever.wait()
        if model == "failed":
            raise UnusableModel("no")
        return await engines.make(model, publish, placement, cells)

    stage = stage_of(make=make, models=("unused", "resolving", "loading", "served", "failed"))
    stage.engines = engines
    asked = [stage.submit(model)[1] for model in ("resolving", "loading", "served", "failed")]
    (await stage.engine("served")).load()
    await soon(asked[2].accepted())
    await stage.engine("loading")
    with pytest.raises(ModelLoadFailed):
        await soon(asked[3].accepted())
    assert await soon(stage.controller.close(MAX_WAIT_S))
    for generation in asked[:3]:
        with pytest.raises(ShuttingDown):
            await soon(generation.text())
    stage.assert_nothing_is_left()
