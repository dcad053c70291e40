"""OpenAI's own clients on models in process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from modelyard import ModelBuilder
from modelyard.protocol.requests import Cancel
from support.models_in_process import WAIT_S, async_model_of, model_of, two
from support.scripted_engines import ScriptedEngines


def test_openais_client_streams_as_it_is_said_and_cancels(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    with model_of(two(tiny), engines) as model, model.openai_client() as client, ThreadPoolExecutor() as pool:
        asking = pool.submit(
            client.chat.completions.create, model="b", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        engine = engines.started("b")
        stream = asking.result(WAIT_S)
        assert next(stream).choices[0].delta.role == "assistant"
        for said in ("one", "two", "three"):
            engine.say(said)
            assert next(stream).choices[0].delta.content == said
        stream.close()
        engine.heard(Cancel)


async def test_openais_async_client_streams_as_it_is_said_and_cancels(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with asyncio.timeout(WAIT_S):
        async with await async_model_of(two(tiny), engines) as model, model.async_openai_client() as client:
            stream = await client.chat.completions.create(model="b", messages=messages, stream=True)
            await anext(stream)
            engine = engines.started("b")
            for said in ("one", "two"):
                engine.say(said)
                assert (await anext(stream)).choices[0].delta.content == said
            await stream.close()
            await asyncio.to_thread(engine.heard, Cancel)


async def test_openais_async_client_runs_on_any_event_loop(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines
) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    async with asyncio.timeout(WAIT_S):
        model = await asyncio.to_thread(model_of, two(tiny), engines)
        async with model.async_openai_client() as client:
            stream = await client.chat.completions.create(model="b", messages=messages, stream=True)
            await anext(stream)
            engine = engines.started("b")
            engine.say("one")
            assert (await anext(stream)).choices[0].delta.content == "one"
            await stream.close()
            await asyncio.to_thread(engine.heard, Cancel)
            with pytest.raises(openai.NotFoundError, match="Known: a, b"):
                await client.chat.completions.create(model="c", messages=messages)
        await asyncio.to_thread(model.close)


def test_openais_client_raises_its_own_errors(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    with model_of(two(tiny), engines) as model, model.openai_client() as client:
        with pytest.raises(openai.NotFoundError, match="Known: a, b"):
            client.chat.completions.create(model="c", messages=messages)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="a", messages=messages, temperature=-1)
        hasty = client.with_options(timeout=0.2)
        with pytest.raises(openai.APITimeoutError):
            # It is never answered.
            hasty.chat.completions.create(model="a", messages=messages)
        engines.started("a").heard(Cancel)
