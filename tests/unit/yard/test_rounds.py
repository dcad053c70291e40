"""Rounds of one answer as an agent makes them, with scripted engines behind real files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from modelyard.config import Config, validate_config
from modelyard.errors import ContextLengthExceeded, InvalidRequest, ModelLoading, ModelUnloaded
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Submit
from modelyard.yard.requests.context import CALLER, Caller
from modelyard.yard.requests.requests import Request, WaitOptions
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.submission import Rounds
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines

WAIT_S = 20.0


@pytest.fixture
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda _: ["Hello", " world"])
    yield engines
    assert engines.end()


def config(folder: Path) -> Config:
    write(folder / "tiny.gguf", tiny_model())
    models = [{"model_id": "./tiny.gguf", "alias": "a", "idle_unload_seconds": 0, "load": "on-demand"}]
    return validate_config({"models": models}, source="test", base=folder)


@pytest_asyncio.fixture
async def yard(tmp_path: Path, engines: ScriptedEngines) -> AsyncIterator[Yard]:
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    yield yard
    await yard.close()


async def answer(rounds: Rounds, **fields: object) -> str:
    async with asyncio.timeout(WAIT_S):
        with rounds.submit(Request(Text("Hi"), "a", **fields)) as stream:
            return await stream.text()


def holds(yard: Yard) -> int:
    return sum(len(model.holds) for model in yard.controller.state.models.values())


async def test_a_model_stays_between_rounds_and_goes_after_the_last(yard: Yard, engines: ScriptedEngines) -> None:
    with yard.rounds("a") as rounds:
        for _ in range(3):
            assert await answer(rounds) == "Hello world"
            assert holds(yard) == 1
            assert yard.model("a").status == "loaded"
    assert holds(yard) == 0
    assert len(engines.of("a")) == 1
    assert not yard.health.is_ready("a")


async def test_a_round_that_is_left_early_leaves_no_hold(yard: Yard) -> None:
    with yard.rounds("a") as rounds:
        await answer(rounds)
        with rounds.submit(Request(Text("Hi"), "a")):
            pass
    # It waits for holds.
    async with asyncio.timeout(WAIT_S):
        await yard.unload("a")
    assert holds(yard) == 0


async def test_a_round_that_is_refused_before_it_is_queued_leaves_the_hold_for_the_next(yard: Yard) -> None:
    caller = Caller()
    caller.max_tokens = 10
    token = CALLER.set(caller)
    try:
        with yard.rounds("a") as rounds:
            await answer(rounds)
            with pytest.raises(InvalidRequest):
                await answer(rounds, max_tokens=11)
            assert holds(yard) == 1
            assert await answer(rounds) == "Hello world"
            with pytest.raises(InvalidRequest):
                await answer(rounds, max_tokens=11)
    finally:
        CALLER.reset(token)
    assert holds(yard) == 0


async def test_a_later_round_waits_for_a_model_that_made_room_whatever_the_client_asked(yard: Yard) -> None:
    with yard.rounds("a") as rounds:
        await answer(rounds)
        await yard.unload("a", UnloadMode.SUSPEND)
        with pytest.raises(ModelLoading):
            async with yard.generate(Request(Text("Hi"), "a", wait_options=WaitOptions(wait_s=0.0))):
                pass
        assert await answer(rounds, wait_options=WaitOptions(wait_s=0.0)) == "Hello world"


async def test_an_unload_by_force_ends_an_answer_between_its_rounds(yard: Yard) -> None:
    with yard.rounds("a") as rounds:
        await answer(rounds)
        await yard.unload("a", UnloadMode.FORCE)
        with pytest.raises(ModelUnloaded):
            await answer(rounds)
    assert holds(yard) == 0


async def test_a_round_whose_prompt_was_too_long_is_made_again_in_its_place(tmp_path: Path) -> None:
    engines = ScriptedEngines()
    yard = Yard(config(tmp_path), engines.make_handle)
    await yard.start()
    too_long = ContextLengthExceeded(8, 9)
    with yard.rounds("a") as rounds:
        for number, error in enumerate((too_long, too_long, None), 1):
            with rounds.submit(Request(Text("Hi"), "a")) as stream:
                engine = await asyncio.to_thread(engines.started, "a")
                await asyncio.to_thread(engine.heard, Submit, number)
                if error is None:
                    engine.finish()
                    await stream.text()
                else:
                    engine.fail(error)
                    with pytest.raises(ContextLengthExceeded):
                        await stream.text()
            assert holds(yard) == 1
    assert holds(yard) == 0
    await yard.close()
    assert engines.end()
