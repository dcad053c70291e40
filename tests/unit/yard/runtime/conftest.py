"""Stages that are closed in the end, and must then hold nothing."""

import asyncio
from types import SimpleNamespace

import pytest

from modelyard.yard.runtime import controller as controller_module
from modelyard.yard.runtime import engine_reports as engine_reports_module
from modelyard.yard.runtime import inflight as inflight_module
from support.controller_stage import Stage, soon, turn
from support.scripted_engines import MAX_WAIT_S, ScriptedEngines


@pytest.fixture
async def stage_of():
    """Builds stages. Each is closed in the end, and must then hold nothing; no callback may have failed."""
    failures, stages = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def build(*, loads=True, answer=None, **options):
        stage = Stage(ScriptedEngines(loads=loads, answer=answer), **options)
        stages.append(stage)
        return stage

    yield build
    for stage in stages:
        for engine in (engine for name in stage.controller.state.models for engine in stage.engines.of(name)):
            engine.wake()
        assert await soon(stage.controller.close(MAX_WAIT_S))
        await turn()
        stage.assert_nothing_is_left()
        assert await asyncio.to_thread(stage.engines.end)
    await turn()
    assert failures == []


@pytest.fixture
def clock(monkeypatch):
    """The controller's clock: it stands still until the test moves it."""
    clock = SimpleNamespace(now=1000.0)
    for module in (controller_module, engine_reports_module, inflight_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock
