"""Weights that stay in memory when their engine ends, and files that change meanwhile."""

import asyncio

import pytest

from modelyard.errors import (
    ModelLoadFailed,
    UnusableModel,
)
from modelyard.yard.residency.state import LoadState
from modelyard.yard.runtime.interfaces import ModelFilesReplaced
from support.controller_stage import parked, soon, turn, unload
from support.scripted_engines import MAX_WAIT_S


async def test_files_that_are_replaced_before_their_load_are_sized_again(stage_of):
    stage = stage_of()
    made, sized = stage.factory.make, stage.factory.size
    sizes = []

    async def size(model):
        sizes.append(model)
        return await sized(model)

    async def make_of_other_files(model, publish, placement, cells):
        stage.factory.make = made
        raise ModelFilesReplaced("m.gguf")

    stage.factory.make, stage.factory.size = make_of_other_files, size
    await stage.running()
    assert sizes == ["a", "a"]
    assert stage.controller.counters["a"].loads == {"ok": 1}


async def test_parked_weights_are_held_until_the_next_engine_has_loaded(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    _, generation = stage.submit()
    await soon(generation.accepted())
    assert weights.releases == 1


async def test_parked_weights_are_given_up_when_the_next_load_fails(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    make = stage.engines.make

    async def fail(model, publish, placement, cells):
        raise UnusableModel("gone")

    stage.factory.make = fail
    with pytest.raises(ModelLoadFailed):
        await soon(stage.controller.reload("a"))
    assert weights.releases == 1
    stage.factory.make = make
    await soon(stage.controller.reload("a"))
    assert weights.releases == 1


async def test_an_engine_that_fails_to_wake_leaves_no_weights(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    stage.engines.loads = False
    reload = stage.controller.reload("a")
    (await stage.engine(number=2)).fail_load("no memory")
    with pytest.raises(ModelLoadFailed):
        await soon(reload)
    assert weights.releases == 1


async def test_an_unload_of_a_parked_model_gives_its_weights_up(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    await soon(unload(stage.controller, "a"))
    assert (weights.releases, stage.model().load_state) == (1, LoadState.UNLOADED)


async def test_a_close_gives_parked_weights_up(stage_of):
    stage = stage_of()
    weights = await parked(stage)
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert weights.releases == 1


async def test_a_close_gives_weights_up_whose_model_was_about_to_wake(stage_of):
    stage = stage_of()
    weights = await parked(stage)

    async def never(model, publish, placement, cells):
        await asyncio.Event().wait()

    stage.factory.make = never
    stage.submit()
    await turn()
    assert await soon(stage.controller.close(MAX_WAIT_S))
    assert weights.releases == 1
