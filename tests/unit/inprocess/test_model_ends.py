"""How models in process end: builds that fail, interrupts, models that are closed or dropped, forks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard import ModelBuilder
from modelyard.errors import Closed, ModelLoadFailed
from modelyard.protocol.requests import Cancel, Submit
from support.gguf_writer import tiny_model, write
from support.models_in_process import WAIT_S, async_model_of, interrupt_main, model_of, two
from support.scripted_engines import ScriptedEngines


def test_an_interrupt_ends_what_it_interrupts(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    def interrupt() -> None:
        engines.started("a").heard(Submit)
        interrupt_main()

    with model_of(two(tiny), engines) as model, ThreadPoolExecutor() as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.send_chat_request("Hi")
        interrupting.result(WAIT_S)
        engines.started("a").heard(Cancel)
        assert model.list_models() == ["a", "b"]


def test_an_interrupted_build_frees_everything(tiny: Callable[[], ModelBuilder]) -> None:
    engines = ScriptedEngines(loads=False)

    def interrupt() -> None:
        engines.started("a").load()
        engines.started("b")
        interrupt_main()

    with ThreadPoolExecutor() as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model_of(two(tiny), engines)
        interrupting.result(WAIT_S)
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


def test_a_build_that_fails_half_way_frees_everything(tiny: Callable[[], ModelBuilder]) -> None:
    engines = ScriptedEngines(loads=False)

    def load() -> None:
        engines.started("a").load()
        engines.started("b").fail_load("its weights are odd")

    with ThreadPoolExecutor() as pool:
        loading = pool.submit(load)
        with pytest.raises(ModelLoadFailed, match="its weights are odd"):
            model_of(two(tiny), engines)
        loading.result(WAIT_S)
    # Also the one that was loaded has ended.
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


async def test_a_build_that_is_cancelled_frees_everything(tiny: Callable[[], ModelBuilder]) -> None:
    engines = ScriptedEngines(loads=False)
    async with asyncio.timeout(WAIT_S):
        building = asyncio.create_task(async_model_of(two(tiny), engines))
        await asyncio.to_thread(engines.started, "b")
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


def test_a_model_that_is_closed_says_so(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    model = model_of(two(tiny), engines)
    stream = model.stream_chat_request("Hi")
    next(stream)
    client = model.openai_client()
    model.close()
    for call in (
        model.list_models,
        lambda: model.send_chat_request("Hi"),
        lambda: model.stream_chat_request("Hi"),
        lambda: next(stream),
        model.openai_client,
        lambda: client.models.list(),
        model.__enter__,
    ):
        with pytest.raises(Closed, match="Build it again"):
            call()
    model.close()
    stream.close()


def test_the_repr_of_a_model_that_is_closed_meanwhile_says_so(
    tiny: Callable[[], ModelBuilder], engines: ScriptedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model_of(two(tiny), engines) as model:
        cut: Future[str] = Future()
        cut.cancel()
        monkeypatch.setattr(model.thread, "submit", lambda _: cut)
        assert repr(model) == "<Model: closed>"
        monkeypatch.undo()


def test_who_waits_when_the_model_is_closed_is_told(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    model = model_of(two(tiny), engines)
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(model.send_chat_request, "Hi") for _ in range(3)]
        engines.started("a").heard(Submit, 3)
        model.close()
        for each in waiting:
            assert isinstance(each.exception(WAIT_S), Closed)


def test_a_model_that_nobody_holds_goes(tiny: Callable[[], ModelBuilder], engines: ScriptedEngines) -> None:
    model = model_of(two(tiny), engines)
    thread = model.thread
    gone = weakref.ref(model)
    with pytest.warns(ResourceWarning, match="not closed"):
        del model
    assert gone() is None
    thread.close(WAIT_S)
    assert all(engine.join(WAIT_S) for name in ("a", "b") for engine in engines.of(name))


FORK = """
import os, sys
from modelyard import Model, ModelBuilder
from modelyard.yard.yard import Yard
from support.scripted_engines import ScriptedEngines

engines = ScriptedEngines(answer=lambda _: ["Hello"])
model = Model(ModelBuilder(sys.argv[1]).config(), lambda config: Yard(config, engines.make_handle))
child = os.fork()
if child == 0:
    try:
        model.send_chat_request("Hi")
    except BaseException as refused:
        print(type(refused).__name__, refused, flush=True)
    # Its end must not disturb, nor wait for, what only the parent has.
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(model.send_chat_request("Hi").choices[0].message.content)
# Not closed: the interpreter's exit does it.
"""


def run(program: str, path: Path) -> str:
    """Return what a program prints that must end well, and say nothing on stderr."""
    tests = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{tests.parent / 'src'}:{tests}", "PATH": "", "HOME": str(path.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_forked_child_is_told_at_once_and_the_parent_goes_on(tmp_path: Path) -> None:
    first, second = run(FORK, write(tmp_path / "tiny.gguf", tiny_model())).splitlines()
    assert first.startswith("ForkedProcess The model was built in process ")
    assert second == "Hello"


SERVING_AT_THE_END = """
import sys
from modelyard import Model, ModelBuilder, start_server
from modelyard.yard.yard import Yard
from support.scripted_engines import ScriptedEngines

engines = ScriptedEngines(answer=lambda _: ["Hello"])
model = Model(ModelBuilder(sys.argv[1]).config(), lambda config: Yard(config, engines.make_handle))
print(start_server(model, port=0).url)
"""


def test_a_program_that_ends_beside_its_server_ends_without_a_word(tmp_path: Path) -> None:
    assert run(SERVING_AT_THE_END, write(tmp_path / "tiny.gguf", tiny_model())).startswith("http://127.0.0.1:")
